"""RTE: does the first text entail the second?"""

from bench.tasks import Task, Tsv

RTE = Task(
    name="rte",
    summary="textual entailment (GLUE RTE): 2,490 training pairs, 277 to report on",
    source="Dagan et al., 2006; Bentivogli et al., 2009; GLUE: Wang et al., 2019",
    labels=("entailment", "not_entailment"),
    metrics=("accuracy",),
    max_length=128,
    text="sentence1",
    pair="sentence2",
    hub=("nyu-mll/glue", "rte"),
    folder="glue/RTE",
    tsv=Tsv(
        files={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        text="sentence1",
        pair="sentence2",
        label="label",
        named=True,
    ),
    unlabelled={"test": "RTE.tsv"},
)
