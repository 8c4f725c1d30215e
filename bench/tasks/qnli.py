"""QNLI: does a sentence hold the answer to a question?"""

from bench.tasks import Task, Tsv

QNLI = Task(
    name="qnli",
    summary="does a sentence answer a question (GLUE QNLI): 104,743 training pairs, 5,463 to report on",
    source="Rajpurkar et al., 2016; GLUE: Wang et al., 2019",
    labels=("entailment", "not_entailment"),
    metrics=("accuracy",),
    max_length=128,
    text="question",
    pair="sentence",
    hub=("nyu-mll/glue", "qnli"),
    folder="glue/QNLI",
    tsv=Tsv(
        files={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        text="question",
        pair="sentence",
        label="label",
        named=True,
    ),
    unlabelled={"test": "QNLI.tsv"},
)
