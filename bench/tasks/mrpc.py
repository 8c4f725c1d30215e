"""MRPC: do two sentences from the news say the same?"""

from bench.tasks import Task, Tsv

MRPC = Task(
    name="mrpc",
    summary="paraphrase detection in news (GLUE MRPC): 3,668 training pairs, 408 to report on",
    source="Dolan and Brockett, 2005; GLUE: Wang et al., 2019",
    labels=("not_equivalent", "equivalent"),
    metrics=("accuracy", "f1"),
    max_length=128,
    text="sentence1",
    pair="sentence2",
    hub=("nyu-mll/glue", "mrpc"),
    folder="glue/MRPC",
    tsv=Tsv(
        files={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        text="#1 String",
        pair="#2 String",
        label="Quality",
    ),
    unlabelled={"test": "MRPC.tsv"},
)
