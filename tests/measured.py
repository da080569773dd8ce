"""Records of made-up runs, for tests of what is made from them."""

from vervet.evaluation.metrics import from_confusion

LABELS = ["anger", "fear"]


def record(confusion=((8, 2), (1, 9)), **changes):
    scores = from_confusion(confusion, LABELS)
    made = {
        "corpus": "emodb", "protocol": "speaker", "leaky": False, "network": "student", "recipe": "paper", "seed": 0,
        "fold": 0, "wa": scores.wa, "uar": scores.uar, "macro_f1": scores.macro_f1, "confusion": scores.confusion,
        "labels": LABELS, "n_test": scores.n, "epochs": 50, "split_hash": "5f0c", "commit": "e70b88a",
        "machine": "2 CPU cores", "minutes": 12.5, "wa_interval": None, "uar_interval": [0.5, 0.9],
    }  # fmt: skip
    made |= changes
    made.setdefault("command", f"vervet train paper.yaml --fold {made['fold']} --seed={made['seed']}")
    return made


def leaky(*confusion, **changes):
    return record(*confusion, **({"protocol": "paper", "leaky": True, "uar_interval": None} | changes))
