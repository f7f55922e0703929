"""What a run of anything needs: recipes, its folder, checkpoints, progress, processes, stopping, reports."""
