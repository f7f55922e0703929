"""Training of the autoencoder: its config, networks, update and evaluation, in the loop of litevae/runs."""
