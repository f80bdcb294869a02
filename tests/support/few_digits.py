"""The embedded digits from a tenth of their scans.

With all scans, runs on single digits take most of the time for validation.
"""

import dataclasses
from unittest import mock

from mmtransxnet.datasets.digits import build, scans

# Odd numbers: two processes do not share the pictures evenly.
NUMBERS = dict(train=121, val=45)


def build_few(root, **options):
    """As build_digits; every class is in both splits."""
    sources = scans.load_sources()
    pools = {s: pool[: NUMBERS[s]] for s, pool in sources.pools.items()}
    few = dataclasses.replace(sources, pools=pools)
    with mock.patch.object(build, 'load_sources', return_value=few):
        build.build_digits(root, renderings=1, **options)
    return root
