_base_ = './common.py'

default_scope = 'mmdet'

default_hooks = dict(visualization=dict(type='DetVisualizationHook'))

visualizer = dict(
    type='DetLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
# COCO's own train2017 has boxes without height.
bad_data = dict(policy='skip')
