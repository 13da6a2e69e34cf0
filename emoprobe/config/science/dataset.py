"""Source and number of the questions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Added, Extent, Section, Text, check_name


class Dataset(Section):
    """Source and number of the questions."""

    source: Text = Field(
        "gsm_symbolic",
        description="`reasoning_gym:TASK` (embedded generators with numbers as answers; no question twice), "
        "`gsm_symbolic` (one of them, questions as they come), `gsm8k`, any Hugging Face data set by its path "
        "(`OWNER/NAME`, or a local directory `./name`), or a file: `.jsonl`, `.csv` (either also `.gz`) or `.parquet`.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of a `reasoning_gym` task, such as `max_terms: 2`."
    )
    config: Text | None = Field(None, description="Configuration of a Hugging Face data set; null: the only one.")
    revision: Text | None = Field(
        None, description="Branch, tag or commit of a Hugging Face data set; null: the default branch."
    )
    split: Text = Field("test", description="Split of a Hugging Face data set; other sources ignore it.")
    samples: Annotated[int, Extent] = Field(
        8, ge=1, le=999_999, description="Number of questions, from the first of one seeded permutation."
    )
    question: Text = Field(
        "question",
        description="Column of the question in a file or Hugging Face data set; `a.b` is field b of column a.",
    )
    answer: Text | None = Field(
        "answer",
        description="Column of the gold answer; null: there is none, and no grader may need one.",
    )
    answer_type: Annotated[Literal["number", "text"], Added] = Field(
        "number",
        description="number: gold answers are numbers or, with `choices`, options; text: they are taken as they are, "
        "for graders that compare texts.",
    )
    choices: Text | None = Field(
        None,
        description="Column with a list of options. They are shown below the question, and the answer is a letter.",
    )
    group: Text | None = Field(
        None,
        description="Column that groups samples, such as their template; folds never split a group.",
    )
    id: Annotated[Text | None, Added] = Field(
        None,
        description="Column of ids in a file. Then a sample is called `{id_prefix}_{id}`, and order and texts follow "
        "from the ids, so that rows added anywhere in the file change nothing for the others; null: rows are numbered.",
    )
    drawn: Annotated[list[Text] | None, Added, Extent] = Field(
        None, description="Sample ids in their order, which a run fills in where `id` is set; leave it out."
    )
    id_prefix: str = Field("gsm8k", description="Sample ids are `{id_prefix}_0001` and so on.")

    @model_validator(mode="after")
    def _drawn_by_id(self) -> Dataset:
        if self.drawn is not None and self.id is None:
            raise ValueError("drawn is filled in by a run with dataset.id; remove it")
        return self

    @field_validator("id_prefix")
    @classmethod
    def _prefix(cls, prefix: str) -> str:
        return check_name(prefix)
