"""The provided module: when it comes, what it holds, what it says."""

import importlib.util
import inspect
import pathlib
import re
import sys
import textwrap
import types

import mmcv
import pytest
from mmcv import _ext
from mmcv.utils import ext_loader

from mmtransxnet.ops import install
from mmtransxnet.ops.extension import OPERATORS
from tests.support.tools import run_python

LINE = 'Operators of mmcv.ops: '


def run(code, *args):
    """Run code in a new interpreter; return what it wrote."""
    return run_python(textwrap.dedent(code), *args)


def bindings():
    """mmcv's operators and the names of their arguments, from its source."""
    source = pathlib.Path(mmcv.__file__).parent / 'ops/csrc/pytorch'
    text = (source / 'pybind.cpp').read_text()
    found = {}
    for part in text.split('m.def(')[1:]:
        name = re.match(r'\s*"(\w+)"', part)[1]
        found[name] = re.findall(r'py::arg\("(\w+)"\)', part.split(';')[0])
    return found


def test_signatures_are_mmcv_s():
    theirs = bindings()
    assert len(theirs) > 100
    for name, function in OPERATORS.items():
        parameters = inspect.signature(function).parameters
        assert list(parameters) == theirs[name], name


def test_every_operator_of_mmcv_is_there():
    missing = sorted(set(bindings()) - set(OPERATORS))
    assert 'nms_rotated' in missing
    for name in missing:
        with pytest.raises(NotImplementedError, match=f"'{name}'.*install"):
            getattr(_ext, name)(1, key=2)


def test_only_operators_are_there():
    assert not hasattr(_ext, '__path__')
    with pytest.raises(AttributeError, match='__wrapped__'):
        _ext.__wrapped__  # noqa: B018


def test_python_finds_the_module():
    assert install() is True
    assert install() is True
    assert sys.meta_path.count(_ext.__spec__.loader) == 1
    assert importlib.util.find_spec('mmcv._ext') is _ext.__spec__
    if sys.version_info < (3, 14):  # it calls what Python has no longer
        assert ext_loader.check_ops_exist()
    assert importlib.util.find_spec('mmcv._other') is None


def test_missing_operator_through_mmcv():
    import torch
    from mmcv.ops import box_iou_rotated

    with pytest.raises(NotImplementedError, match="'box_iou_rotated'"):
        box_iou_rotated(torch.rand(2, 5), torch.rand(2, 5))


def test_environment_report():
    from mmcv.utils import collect_env

    assert 'mmtransxnet' in collect_env()['MMCV Compiler']


def test_custom_imports_are_enough():
    """A config's custom_imports; then everything imports, with one line."""
    output = run("""
        from mmengine.config import Config
        from mmengine.logging import MMLogger
        Config.fromstring(
            "custom_imports = dict(imports=['mmtransxnet'])", '.py')
        assert not MMLogger._instance_dict, 'the Runner makes its own'
        import mmtransxnet.ops
        mmtransxnet.ops.install()
        import mmdet.apis, mmdet.models, mmseg.apis, mmseg.models
        import mmpretrain.apis, mmpretrain.models
        from mmengine.registry import MODELS
        for name in ('DCN', 'DCNv2', 'MultiScaleDeformableAttention'):
            assert MODELS.get(name) is not None, name
    """)
    assert output.count(LINE) == 1
    assert f'INFO - {LINE}mmtransxnet.ops' in output


def test_mmcv_imported_before(tmp_path):
    """The operator that mmcv.cnn missed is there, and the line is logged."""
    log = tmp_path / 'run.log'
    run(
        """
        import sys, warnings
        warnings.simplefilter('ignore')
        import mmcv.cnn.bricks.transformer
        try:
            import mmcv.ops
        except ImportError:
            pass
        else:
            raise AssertionError('this needs an mmcv without operators')
        from mmengine.logging import MMLogger
        MMLogger.get_instance('run', log_file=sys.argv[1])
        import mmtransxnet
        from mmcv.cnn.bricks.transformer import MultiScaleDeformableAttention
        from mmengine.registry import MODELS
        assert MODELS.get('DCNv2') is not None
        import torch
        from mmcv.ops import nms
        assert len(nms(torch.rand(3, 4), torch.rand(3), 0.5)[1])
        """,
        log,
    )
    assert log.read_text().count(LINE) == 1


def test_compiled_extension_is_left_alone(tmp_path):
    tmp_path.joinpath('_ext.py').write_text("""
compiled = True
def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)
    return lambda *args, **kwargs: 'compiled ' + name
""")
    output = run(
        """
        import sys, warnings
        import mmcv
        mmcv.__path__.append(sys.argv[1])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            from mmtransxnet.ops import install
            assert install() is False
            assert install() is False
        assert not [w for w in caught if 'compiled' in str(w.message)]
        import mmcv._ext, mmcv.ops
        from mmcv.ops.nms import ext_module
        assert mmcv._ext.compiled
        assert ext_module is mmcv._ext
        assert ext_module.nms() == 'compiled nms'
        """,
        tmp_path,
    )
    assert output.count(LINE) == 1
    assert f'{LINE}compiled' in output


@pytest.fixture
def without_extension(monkeypatch, tmp_path):
    """mmcv as if nothing had asked for its extension; a place for one."""
    monkeypatch.setattr(mmcv, '_ext', _ext)  # put back at the end
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    monkeypatch.setattr(mmcv, '__path__', [*mmcv.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    return tmp_path


def test_loaded_extension_is_left_alone(without_extension, monkeypatch):
    theirs = types.ModuleType('mmcv._ext')  # no spec either
    monkeypatch.setitem(sys.modules, 'mmcv._ext', theirs)
    assert install() is False
    assert sys.modules['mmcv._ext'] is theirs
    assert not hasattr(theirs, 'nms')


def test_broken_extension_is_reported(without_extension):
    """Ours does not hide it; mmcv's own error stays what it was."""
    without_extension.joinpath('_ext.py').write_text(
        "raise ImportError('_ext.so: undefined symbol: _ZN2at4_ops')"
    )
    with pytest.warns(RuntimeWarning, match=r'undefined symbol.*Remedy'):
        assert install() is False
    assert 'mmcv._ext' not in sys.modules
    with pytest.raises(ImportError, match='undefined symbol'):
        importlib.import_module('mmcv._ext')
