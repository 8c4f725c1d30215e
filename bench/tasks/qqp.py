"""QQP: do two questions ask the same?"""

from bench.tasks import Task, Tsv

QQP = Task(
    name="qqp",
    summary="duplicate questions (GLUE QQP): about 363,800 training pairs, 40,430 to report on",
    source="Iyer et al., 2017; GLUE: Wang et al., 2019",
    labels=("not_duplicate", "duplicate"),
    metrics=("accuracy", "f1"),
    max_length=128,
    text="question1",
    pair="question2",
    hub=("nyu-mll/glue", "qqp"),
    folder="glue/QQP",
    tsv=Tsv(
        files={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        text="question1",
        pair="question2",
        label="is_duplicate",
        broken=True,  # a few questions hold a line end, which breaks their row in two
    ),
    unlabelled={"test": "QQP.tsv"},
)
