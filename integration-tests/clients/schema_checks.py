"""Validates TOML documents against the schemas that the program prints, with a validator that somebody else wrote.

Usage: schema_checks.py CONFIG_SCHEMA RULES_SCHEMA DOCUMENT...

A document is `fits:config:FILE`, `fits:rules:FILE`, `unfit:config:FILE`, `unfit:rules:FILE`, or `page:FILE`, whose examples have to fit.
Prints a line for each document that is judged otherwise than expected, and then how many there were.
"""

import json
import re
import sys
import tomllib

import jsonschema_rs


def validator(path):
    with open(path, encoding="utf-8") as file:
        schema = json.load(file)
    if not jsonschema_rs.meta.is_valid(schema):
        print(f"{path} is no schema")
    return jsonschema_rs.Draft202012Validator(schema)


def documents(argument):
    """Name, kind, whether it has to fit, and text of what an argument means."""
    word, _, rest = argument.partition(":")
    kind, path = ("page", rest) if word == "page" else rest.split(":", 1)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if word != "page":
        yield path, kind, word == "fits", text
        return
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)):
        yield f"{path}, example {number + 1}", "rules" if "[rules." in block else "config", True, block


validators = {"config": validator(sys.argv[1]), "rules": validator(sys.argv[2])}
count = 0
for argument in sys.argv[3:]:
    for name, kind, fits, text in documents(argument):
        count += 1
        errors = list(validators[kind].iter_errors(tomllib.loads(text)))
        if bool(errors) == fits:
            said = "; ".join(f"{error.instance_path}: {error.message}" for error in errors)
            print(f"{name}: expected {'to fit' if fits else 'not to fit'}: {said}")
print(f"{count} documents")
