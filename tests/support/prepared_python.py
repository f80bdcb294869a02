"""A Python that has loaded the libraries, forked for each program.

Loading them takes most of the time of a tool on small data. Started as a
program, by :mod:`tests.support.tools`; it reads a request in JSON from each
line of its input, and prints the process's number, then its status.

With the package as well, and what it imports for the three tasks: a test of
what importing it does starts a Python of its own.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import sys
import threading
import traceback

LIBRARIES = (
    'torch', 'torchvision', 'torch.distributed.fsdp', 'torch.distributed.run',
    'mmengine', 'mmengine.runner', 'cv2', 'imgaug.augmenters', 'joblib',
    'matplotlib.pyplot', 'numba', 'pandas', 'pycocotools.mask',
    'rich.progress', 'scipy.interpolate', 'scipy.ndimage', 'scipy.optimize',
    'scipy.stats', 'shapely', 'skimage.morphology', 'skimage.segmentation',
    'sklearn.cluster', 'sklearn.metrics', 'terminaltables', 'timm',
    # First: mmcv.cnn looks for the operators that it installs.
    'mmtransxnet', 'mmtransxnet.engine.runner.train',
    'mmtransxnet.apis.inference',
    *(
        f'{package}.{part}'
        for package in ('mmdet', 'mmseg', 'mmpretrain')
        for part in ('datasets', 'engine', 'evaluation', 'models',
                     'structures', 'visualization')
    ),
)  # fmt: skip


def next_program(answers):
    """Answer requests; return, in a new process, what it has to run.

    Args:
        answers: A file.
    """
    for line in sys.stdin:
        request = json.loads(line)
        number = os.fork()
        if number == 0:
            return request
        print(number, file=answers, flush=True)
        _, status = os.waitpid(number, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
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


def run(program):
    """Run a program; return its status as Python would."""
    try:
        runpy.run_path(program, run_name='__main__')
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(status):
    """End the process without freeing what was loaded, which takes seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == '__main__':
    # Libraries print when they are imported.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name in LIBRARIES:
        # The distributions of OpenMMLab do not have all of them.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Collections would copy the memory that is shared.
    gc.freeze()
    end(run(become(next_program(answers))))
