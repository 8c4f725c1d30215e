"""SST-2: is a phrase or sentence from a film review positive?"""

from bench.tasks import Task, Tsv

SST2 = Task(
    name="sst2",
    summary="sentiment of film-review sentences (GLUE SST-2): 67,349 training phrases, 872 sentences to report on",
    source="Socher et al., 2013; GLUE: Wang et al., 2019",
    labels=("negative", "positive"),
    metrics=("accuracy",),
    max_length=64,
    text="sentence",
    hub=("nyu-mll/glue", "sst2"),
    folder="glue/SST-2",
    tsv=Tsv(files={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}, text="sentence", label="label"),
    phrases=True,
    unlabelled={"test": "SST-2.tsv"},
)
