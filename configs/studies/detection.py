"""What studies of detection share: the target and its words; no study itself.

Sun et al. 2017, section 5.2: Faster R-CNN from four starts. In the synthetic
world the target is configs/synthetic_detection.py.
"""

from configs.studies.transfer import Target


def target(name, metric, title):
  """Detection on 'coco' or 'voc', by a metric and how reports call it."""
  return Target(
    name=name,
    task='object detection',
    synthetic='configs/synthetic_detection.py',
    real=f'configs/{name}_detection.py',
    metric=metric,
    title=title,
    more=dict(preset=('paper', 'tfod')),
  )


SYNTHETIC_TEXT = """
A ResNet-14 of width 24 stands in for ResNet-101, synthetic worlds for the data
sets: 300M is 128,000 images of 200 classes whose labels are incomplete and
wrong in 20% of the cases, completed through the hierarchy, for 2 epochs;
ImageNet is 1,250 images of 100 classes with one right label each, for 28
epochs; so 300M has 102 times the images and 7 times the steps, where the paper
has 234 and 7.2. ImageNet+300M has the steps of both; 300M for as many stands
beside it. The target has 12 other classes, other looks, and few images, with a
box around every object.

All runs on the target have the same length and schedule, and all train batch
norm. Each start has a rate of its own, chosen on other images than those of
the table.
"""
