# The published classifier: the backbone's last stage through its norm,
# average pooling, a linear layer. Leaves set size, drop path and channels.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='TransXNet',
        arch='t',
        image_size=224,
        out_indices=(3, ),
        drop_path_rate=0.1,
        with_cp=False),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=448,
        # On soft labels, too: 1 - 0.1 of the label, 0.1 over all classes.
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(
            type='TruncNormal', layer='Linear', std=0.02, bias=0.0)),
    # One of the two for each batch.
    train_cfg=dict(augments=[
        dict(type='Mixup', alpha=0.8),
        dict(type='CutMix', alpha=1.0),
    ]))
