"""A longer text of docs/recipes.md, with an example."""

from __future__ import annotations

from tfmeta.recipes.augmentation import LAYERS

_TEXT = """
### augment, support_groups and query_groups

`augment` changes each image at random, by Keras's layers: one, or a list of them, for all images of
an episode or, in a mapping, for those of the support set (`support`) or the queries (`query`).
Which change an image gets follows from the seed, so that an interrupted run goes on with the same
images. Options are those of the layer; pixels are from 0 to 1, so some layers need
`value_range: [0, 1]`.

```yaml
episodes:
  n_way: 5
  n_shot: 1
  n_query: 3
  augment:
    support:
      - {class_name: RandomRotation, config: {factor: 0.05, fill_mode: constant}}
      - {class_name: RandomContrast, config: {factor: 0.3, value_range: [0, 1]}}
    query: {class_name: RandomFlip, config: {mode: horizontal}}
  support_groups: [twemoji, noto]  # and queries from all other vendors
evaluation:
  n_episodes: 600
  n_query: 1
  query_groups: [openmoji]
  also:
    - {support_groups: [fluent]}
```

- Images of validation and test are changed only if `augment` stands in their own section; an entry
  of `also` inherits that of `evaluation`. Groups carry over to validation and test, as sizes do;
  `null` lifts them.
- The examples of `emoji` have groups, their vendors, and those of `icons` too, their families. If
  one of the two keys is left out, its examples come from all groups that the other leaves.
"""
AUGMENTATION_AND_GROUPS = (
    _TEXT + f"- The layers are {', '.join(f'`{name}`' for name in LAYERS)}. Others are refused: "
    "they have weights, mix images, run code of their own, or draw random numbers that a run "
    "could not repeat.\n"
)
