"""Is every wrong argument refused in the same words on every backend?"""

import pytest

from litevae_kernels.testing import bad_inputs


@pytest.mark.parametrize("name", sorted(bad_inputs()))
def test_bad_input(backend: str, name: str) -> None:
    bad = bad_inputs(backend)[name]
    with pytest.raises(bad.error) as raised:
        bad.call()
    assert bad.message in str(raised.value)
