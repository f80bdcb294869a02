"""What is recorded of a machine."""

from mmtransxnet.benchmark.speed.machine import describe, matmul_peak


def test_settings_of_allocator_and_threads_are_recorded(monkeypatch):
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '4194304')
    monkeypatch.setenv('LD_PRELOAD', '/home/someone/libjemalloc.so.2')
    monkeypatch.setenv('OMP_WAIT_POLICY', 'PASSIVE')
    monkeypatch.setenv('HOME', '/home/someone')
    machine = describe('cpu', 2)
    found = machine['environment']
    assert found['MALLOC_TRIM_THRESHOLD_'] == '4194304'
    assert found['LD_PRELOAD'] == 'libjemalloc.so.2'
    assert found['OMP_WAIT_POLICY'] == 'PASSIVE'
    assert 'someone' not in str(machine)
    assert machine['threads'] == 2


def test_a_matrix_product_is_timed():
    assert matmul_peak('fp32', 'cpu') > 0
