"""Properties that hold for whatever hypothesis draws."""

import pytest
from hypothesis import HealthCheck, settings

# How many times as many examples `make fuzz` draws.
_MORE = 20


def register_profiles():
    """The same few examples in each run of the tests; new ones to fuzz."""
    common = dict(
        deadline=None,
        database=None,
        # What a fixture gives is the same for all examples of a test.
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    settings.register_profile('fixed', derandomize=True, **common)
    settings.register_profile('fuzz', print_blob=True, **common)
    settings.load_profile('fixed')


def fuzz(examples):
    """Mark a property, and say how many examples the tests take."""
    if settings.get_current_profile_name() == 'fuzz':
        examples *= _MORE

    def decorate(test):
        return pytest.mark.fuzz(settings(max_examples=examples)(test))

    return decorate
