"""STS-B: how similar in meaning are two sentences, from 0 to 5?"""

from bench.tasks import Task, Tsv

STSB = Task(
    name="stsb",
    summary="semantic similarity from 0 to 5, a regression (GLUE STS-B): 5,749 training pairs, 1,500 to report on",
    source="Cer et al., 2017; GLUE: Wang et al., 2019",
    labels=("similarity",),
    scores=(0.0, 5.0),
    metrics=("pearson", "spearman"),
    max_length=128,
    text="sentence1",
    pair="sentence2",
    hub=("nyu-mll/glue", "stsb"),
    folder="glue/STS-B",
    tsv=Tsv(
        files={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        text="sentence1",
        pair="sentence2",
        label="score",
    ),
    unlabelled={"test": "STS-B.tsv"},
)
