_base_ = './common.py'

default_scope = 'mmseg'

default_hooks = dict(
    visualization=dict(type='SegVisualizationHook'),
    checkpoint=dict(by_epoch=False, interval=4000))

visualizer = dict(
    type='SegLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer')
log_processor = dict(by_epoch=False)
tta_model = dict(type='SegTTAModel')
