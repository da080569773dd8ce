"""Draw a small corpus from a large one, to see what fine-tuning does with a hundred clips; see docs/fine-tuning.md.

    python benchmarks/fine_tuning.py cremad /data/CREMA-D few.csv --speakers 1055 1056 1057 1058 1059
    vervet finetune few.csv --out runs/few
    vervet evaluate default --on few.csv

The shipped model has not heard these actors.
"""

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np

from vervet.corpora import load_corpus
from vervet.corpora.check import clean

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("corpus")
parser.add_argument("root", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--clips", type=int, default=100)
parser.add_argument("--speakers", nargs="+", default=None, help="default: all")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

utterances, _ = clean(load_corpus(args.corpus, args.root))
chosen = [u for u in utterances if args.speakers is None or u.speaker in args.speakers]
if not chosen:
    parser.error(f"no clip is of the speakers {', '.join(args.speakers)}")
order = np.random.default_rng(args.seed).permutation(len(chosen))
# Speakers and emotions in turn, as evenly as the number of clips allows.
rank: Counter = Counter()
ranked = []
for index in order:
    utterance = chosen[index]
    ranked.append((rank[utterance.speaker, utterance.emotion], int(index)))
    rank[utterance.speaker, utterance.emotion] += 1
few = sorted(index for _, index in sorted(ranked, key=lambda pair: pair[0])[: args.clips])
with args.out.open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["file", "emotion", "speaker", "sentence"])
    for utterance in (chosen[index] for index in few):
        table.writerow([utterance.path.resolve(), utterance.emotion, utterance.speaker, utterance.sentence])
