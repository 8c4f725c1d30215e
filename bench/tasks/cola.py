"""CoLA: is a sentence acceptable English?"""

from bench.tasks import Task, Tsv

COLA = Task(
    name="cola",
    summary="linguistic acceptability (GLUE CoLA): 8,551 training sentences, 1,043 to report on",
    source="Warstadt et al., 2019; GLUE: Wang et al., 2019",
    labels=("unacceptable", "acceptable"),
    metrics=("matthews", "accuracy"),
    max_length=64,
    text="sentence",
    hub=("nyu-mll/glue", "cola"),
    folder="glue/CoLA",
    tsv=Tsv(
        files={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        text="sentence",
        label="label",
        header=("source", "label", "mark", "sentence"),  # test.tsv alone has a header row
    ),
    unlabelled={"test": "CoLA.tsv"},
)
