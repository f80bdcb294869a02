"""One model of each family of mmdet, mmseg and mmpretrain, tried."""
