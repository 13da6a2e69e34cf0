"""Two halves of the trajectories: features are put up on one and tested on the other.

The halves have no question in common, no group of questions, and no text of any variant: what a text does to a feature
by its wording alone comes back with every question that it is put before, so a feature that was put up for it would
pass a test on other questions.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import pandas as pd

from emoprobe.analysis.questions import Questions

Half = Literal["fit", "test"]


def halves(table: pd.DataFrame, seed: int) -> pd.Series:
    """The half of each trajectory; null where its text lies in one half and its question in the other.

    Texts are dealt by the parity of their number, the first to the testing half; a tone of four texts or fewer has
    too few of them there for an interval. Questions go with their texts where variants agree on how many there are, so
    that no trajectory is lost; questions of one group stay together where there are groups enough.

    Args:
        table: `variant`, `sample_id`, `index` (the question's place, from 0), `group`, `paraphrase`, `draw` of each.
        seed: deals the groups.
    """
    questions = Questions(table)
    counts = {name: questions.count(name) for name in questions.names}
    several = Counter(count for count in counts.values() if count > 1)
    if questions.groups is not None:
        labels = dict(zip(questions.ids, questions.groups, strict=True))
        order = np.random.default_rng(seed).permutation(int(questions.groups.max()) + 1)
        asked = table["sample_id"].map(lambda name: order[labels[name]] % 2).to_numpy(dtype=int)
    else:
        texts = several.most_common(1)[0][0] if several else 2
        asked = (table["index"].to_numpy(dtype=int) % texts) % 2
    own = table["paraphrase"].astype("Int64").fillna(0).to_numpy(dtype=int) % 2
    told = table["variant"].map(lambda name: counts[name] > 1).to_numpy(dtype=bool)
    found = pd.Series(np.where(asked == 0, "test", "fit"), index=table.index, dtype="string")
    return found.mask(told & (own != asked))
