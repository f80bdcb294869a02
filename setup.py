"""Install mmtransxnet, with either distribution of OpenMMLab as an extra."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def version() -> str:
    """Read the version without importing the package, which needs torch."""
    scope: dict[str, str] = {}
    exec((ROOT / 'mmtransxnet/version.py').read_text('utf-8'), scope)
    return scope['__version__']


def requirements(name: str) -> list[str]:
    """Read a file of requirements/."""
    lines = (ROOT / f'requirements/{name}.txt').read_text('utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


class BuildWithConfigs(build_py):
    """Put configs and tools into the wheel, where mim looks for them."""

    def run(self) -> None:
        """Build as setuptools does, then copy into ``mmtransxnet/.mim``."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'mmtransxnet/.mim'
        shutil.rmtree(target, ignore_errors=True)
        for name in ('configs', 'tools'):
            shutil.copytree(
                ROOT / name,
                target / name,
                ignore=shutil.ignore_patterns('__pycache__'),
            )
        shutil.copy(ROOT / 'model-index.yml', target)


setup(
    name='mmtransxnet',
    version=version(),
    description='The TransXNet backbone for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text('utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    cmdclass={'build_py': BuildWithConfigs},
    packages=find_packages(include=['mmtransxnet', 'mmtransxnet.*']),
    package_data={
        'mmtransxnet.deploy': ['page/*'],
        'mmtransxnet.report': ['page.html'],
    },
    entry_points={
        'console_scripts': ['mmtransxnet = mmtransxnet.command:main']
    },
    python_requires='>=3.10',
    # Neither distribution is named here: they install the same modules, and
    # the second would overwrite the first.
    # Both bring rich, which the tools print with: mmengine imports it.
    install_requires=['torch>=2.6', 'torchvision', *requirements('runtime')],
    extras_require={
        'analysis': requirements('analysis'),
        'onedl': requirements('onedl'),
        'openmmlab': requirements('openmmlab'),
        'digits': requirements('digits'),
        'export': requirements('export'),
        'serve': requirements('serve'),
        'docs': requirements('docs'),
        'tests': requirements('tests'),
        'timm': ['timm>=1.0.31'],
        'web': requirements('web'),
    },
)
