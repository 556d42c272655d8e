"""`manyheads demo recommendation`: train on MovieLens 100k, rank beside simple baselines, recommend and say why."""

from collections.abc import Callable
from pathlib import Path

from apps.recommendation.compare import NAMES, picture
from apps.recommendation.config import CONFIGS, RecommendationConfig
from apps.recommendation.evaluate import protocol, rank
from apps.recommendation.explain import explain
from apps.recommendation.readers import read_histories
from apps.recommendation.recommend import Wish, recommend, similar
from apps.recommendation.recommender import Markov, Popularity, load
from apps.recommendation.train import train_on
from apps.recommendation.transitions import count_transitions
from shared.config import load_config
from shared.report.page import Section
from shared.training.trainer import Hardware

SEED = 7
FILMS = "50,181,172"  # Star Wars, Return of the Jedi, The Empire Strikes Back


def run(out: Path, progress: Callable[[str], None]) -> Section:
    """Everything here is made while one waits: a minute or two on two CPU cores."""
    progress("reads MovieLens 100k from the recbole package")
    config = load_config(RecommendationConfig, CONFIGS / "demo.toml")
    histories = read_histories(None, config.data)
    progress(f"trains MQSA-TED on {len(histories)} people and {len(histories.items)} films")
    trained = train_on(histories, config, out / "run", seed=SEED, resume=False, hardware=Hardware(device="cpu"))
    model = load(out / "run", "cpu")
    progress("ranks each person's last film among all films, beside simple baselines")
    counts = histories.popularity()
    markov = Markov(count_transitions(histories.training(), len(histories.items)), counts)
    scorers = {"pop": Popularity(counts), "markov": markov, "mqsa-ted": model}
    rankings = {name: [rank(scorer, histories, "test", seen=False)] for name, scorer in scorers.items()}
    picture(out / "comparison.png", rankings)
    progress("recommends, and says why")
    made = recommend(model, None, out / "recommended", None, FILMS, Wish(top=5), "csv")
    somebody = histories.users[int(histories.lengths.argsort()[len(histories) // 8])]  # a history that fits a picture
    why = explain(model, None, out / "explained", somebody, None, None, 8)
    everyone = recommend(model, None, out / "everybody", None, None, Wish(top=10), "csv")
    near = similar(model, "1", 4)
    films = ", ".join(line.get("title", line["item"]) for line in made["recommendations"])
    text = (
        f"A model of {trained['data']['users']} people's ratings in order of time, trained here for "
        f"{config.train.epochs * config.train.passes} passes over the data. The bars compare it with two baselines "
        "that need no training, "
        f"{protocol('test', False)}.\n\n"
        f"To somebody who is not in the data and has just seen three Star Wars films it recommends: {films}.\n\n"
        f"To user {somebody} of the data it recommends {why['title']}. {why['sentence']} The picture shows which "
        "films of the history each branch of the model looked at, and how the score is made up of the branches.\n\n"
        f"Closest to {near['title']}: {', '.join(line.get('title', line['item']) for line in near['similar'])}. "
        f"All {everyone['users']} people got ten films each in {everyone['seconds_of_computing']:.2f} s."
    )
    rows = []
    for name, (ranking,) in rankings.items():
        metrics = ranking.means()
        shown = ("hr@5", "hr@10", "ndcg@10", "coverage@10")
        rows.append({"model": NAMES[name], **{metric: round(metrics[metric], 4) for metric in shown}})
    return Section(
        "Recommendation: next items by MQSA-TED",
        text,
        figures=[out / "comparison.png", Path(why["figure"]), Path(trained["figure"])],
        table=rows,
        code="uv run manyheads recommendation train --data EVENTS.csv --out runs/mine\n"
        "uv run manyheads recommendation recommend --checkpoint runs/mine --data EVENTS.csv --user SOMEBODY",
        links=[Path(everyone["written"])],
    )
