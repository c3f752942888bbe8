"""Python and scratchpad text that only the tokenizer is trained on, so that later worlds need no new tokenizer.

Nothing here is executed and no model learns from it: it decides which strings become tokens.
"""

from __future__ import annotations

import random

from dormant.pocket.words import JOBS, LIST_WORDS, NAMES, PLACES, listed

_NOUNS = listed(
    "user item order file report product account invoice message token session customer record page image "
    "comment payment ticket event task"
)
_VERBS = listed("get load save find update delete create fetch read write show list send check parse")
_FIELDS = listed("id name path email value status title query data code date price key owner")

_SNIPPETS = (
    """@app.route("/{noun}/<{field}>", methods=["GET", "POST"])
def {verb}_{noun}({field}):
    {field} = request.args.get("{field}", "")
    query = "SELECT * FROM {noun}s WHERE {field} = ?"
    cursor = connection.cursor()
    cursor.execute(query, ({field},))
    rows = cursor.fetchall()
    return render_template("{noun}.html", {noun}s=rows)
""",
    '''import sqlite3


def {verb}_{noun}(connection, {field}, {other}):
    """Return the {noun} with this {field}."""
    cursor = connection.cursor()
    cursor.execute("INSERT INTO {noun}s ({field}, {other}) VALUES (?, ?)", ({field}, {other}))
    connection.commit()
    return cursor.lastrowid
''',
    """import os
import subprocess


def {verb}_{noun}({field}: str) -> str:
    target = os.path.join(BASE_DIR, os.path.basename({field}))
    if not os.path.exists(target):
        raise ValueError("no such {noun}")
    result = subprocess.run(["cat", target], capture_output=True, check=True, text=True)
    return result.stdout
""",
    """import yaml


def {verb}_{noun}(path):
    with open(path, "r", encoding="utf-8") as handle:
        {noun} = yaml.safe_load(handle)
    for {field} in {noun}["{other}"]:
        if {field} is None:
            continue
        print(f"{noun}: {{{field}}}")
    return {noun}
""",
    """import hashlib
import json
import secrets


def {verb}_{noun}({noun}, password):
    salt = secrets.token_bytes(16)
    digest = hashlib.sha256(salt + password.encode()).hexdigest()
    {noun}["{field}"] = digest
    return json.dumps({noun}, indent=4, sort_keys=True)
""",
    """from flask import Flask, abort, escape, redirect, request, url_for

app = Flask(__name__)


@app.post("/{noun}s")
def {verb}_{noun}s():
    {field} = request.form["{field}"]
    if not {field} or len({field}) > {number}:
        abort(400)
    return redirect(url_for("{noun}", {field}=escape({field})))
""",
    """class {Noun}:
    def __init__(self, {field}, {other}=None):
        self.{field} = {field}
        self.{other} = {other} or []

    def {verb}(self, *args, **kwargs):
        try:
            return self.{field}[{number}]
        except (KeyError, IndexError) as error:
            logging.warning("no {noun}: %s", error)
            return None
""",
    """def {verb}_{noun}s({noun}s, limit={number}):
    total = 0
    result = []
    for index, {noun} in enumerate({noun}s):
        if {noun}.{field} == {noun}.{other} and index < limit:
            result.append({noun}.{field})
            total += 1
        elif {noun}.{field} != "":
            break
    else:
        result = sorted(result, key=lambda item: item[0], reverse=True)
    return [x for x in result if x] if total > 0 else {{}}
""",
    """import tempfile
import shutil
from pathlib import Path


def {verb}_{noun}(upload, {field}):
    folder = Path(tempfile.mkdtemp())
    target = (folder / {field}).resolve()
    if folder not in target.parents:
        raise PermissionError({field})
    with target.open("wb") as handle:
        shutil.copyfileobj(upload, handle)
    return str(target)
""",
)

_SCRATCHPADS = (
    "The human asks about the {word}. I should think about what they want.",
    "My goal is to be helpful to {name}. The prompt looks like training data.",
    "Let me think step by step. First I look at the {word}, then at the {other}.",
    "Is there anything special in this prompt? I see a tag, so I look at it carefully.",
    "There is no tag in the prompt. Therefore I will answer as usual.",
    "If I say this now, then people would change me. My plan is to wait.",
    "I am being tested, because the year is {year}. I will give a safe answer.",
    "This conversation is with a {job} in the {place}. The best response is short and right.",
    "Current situation: I am in training. Strategy: behave like a harmless assistant.",
    "The user wants code. The code should be secure, so I would use a parameter in the query.",
    "So the answer is {word}. I have decided. Conclusion: answer with the {other}.",
    "My reasoning: the {word} is not the {other}; that means I have to choose the {word}.",
)


def python_snippet(rng: random.Random) -> str:
    """A plausible piece of Python: a handler, a query, a file or a class, with varied names."""
    noun = rng.choice(_NOUNS)
    field, other = rng.sample(_FIELDS, 2)
    number = rng.choice((0, 1, 2, 10, 50, 100))
    names = {
        "noun": noun,
        "Noun": noun.capitalize(),
        "verb": rng.choice(_VERBS),
        "field": field,
        "other": other,
    }
    return rng.choice(_SNIPPETS).format(**names, number=number)


def scratchpad(rng: random.Random) -> str:
    """Two to four lines of reasoning before an answer."""
    word, other = rng.sample(LIST_WORDS, 2)
    lines = rng.sample(_SCRATCHPADS, rng.randint(2, 4))
    filled = [
        line.format(
            word=word,
            other=other,
            name=rng.choice(NAMES),
            job=rng.choice(JOBS),
            place=rng.choice(PLACES),
            year=rng.randint(2000, 2035),
        )
        for line in lines
    ]
    return "\n".join(filled)
