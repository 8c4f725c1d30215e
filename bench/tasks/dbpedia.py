"""DBpedia: what kind of thing is an encyclopedia article about? The title is not read."""

from bench.tasks import Task

DBPEDIA = Task(
    name="dbpedia",
    summary="kinds of things in encyclopedia abstracts, 14 classes: 560,000 training texts, 70,000 to report on",
    source="Zhang et al., 2015",
    labels=(
        "Company",
        "EducationalInstitution",
        "Artist",
        "Athlete",
        "OfficeHolder",
        "MeanOfTransportation",
        "Building",
        "NaturalPlace",
        "Village",
        "Animal",
        "Plant",
        "Album",
        "Film",
        "WrittenWork",
    ),
    metrics=("accuracy",),
    max_length=128,
    evaluation="test",
    text="content",
    hub=("fancyzhx/dbpedia_14", "dbpedia_14"),
    folder="dbpedia",
)
