"""A Python that has loaded the libraries, forked for each program.

Loading them takes most of the time of a tool on small data. Started as a
program, by :mod:`tests.support.tools`; it reads a request in JSON from each
line of its input, and prints the process's number, then its status.

What the package itself does when it is imported is part of the tests, so it
is not loaded here.
"""

import contextlib
import importlib
import json
import os
import random
import runpy
import sys

LIBRARIES = (
    'torch', 'torchvision', 'torch.distributed.fsdp', 'torch.distributed.run',
    'mmengine', 'mmengine.runner', 'cv2', 'imgaug.augmenters', 'joblib',
    'matplotlib.pyplot', 'numba', 'pandas', 'pycocotools.mask',
    'rich.progress', 'scipy.interpolate', 'scipy.ndimage', 'scipy.optimize',
    'scipy.stats', 'shapely', 'skimage.morphology', 'skimage.segmentation',
    'sklearn.cluster', 'sklearn.metrics', 'terminaltables', 'timm',
)  # fmt: skip


def next_program():
    """Answer requests; return, in a new process, what it has to run."""
    for line in sys.stdin:
        request = json.loads(line)
        number = os.fork()
        if number == 0:
            return request
        print(number, flush=True)
        _, status = os.waitpid(number, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def become(request):
    """Take the place of a process that was started for a program."""
    import numpy as np

    for stream in ('stdout', 'stderr'):
        file = os.open(request[stream], os.O_WRONLY | os.O_APPEND)
        os.dup2(file, getattr(sys, f'__{stream}__').fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request['cwd'])
    os.environ.clear()
    os.environ.update(request['env'])
    program = request['words'][0]
    sys.argv = request['words']
    added = request['env'].get('PYTHONPATH', '').split(os.pathsep)
    known = [path for path in added if path and path not in sys.path]
    sys.path[:1] = [os.path.dirname(os.path.abspath(program)), *known]
    # Each process has numbers of its own.
    random.seed()
    np.random.seed()
    return program


if __name__ == '__main__':
    for name in LIBRARIES:
        # The distributions of OpenMMLab do not have all of them.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    runpy.run_path(become(next_program()), run_name='__main__')
