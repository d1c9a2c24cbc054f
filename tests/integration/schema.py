"""Validates documents against `towpath schema` with somebody else's validator.

    schema.py SCHEMA.json right FILE.yaml…     every file must be accepted
    schema.py SCHEMA.json wrong FILE.yaml…     every document of every file must be refused
"""

import json
import sys

import jsonschema
import yaml


def main() -> None:
    path, wanted, files = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(path, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name in files:
        with open(name, encoding="utf-8") as file:
            documents = list(yaml.safe_load_all(file))
        assert documents, f"{name} is empty"
        for document in documents:
            errors = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(document)]
            if (wanted == "right") != (not errors):
                sys.exit(f"{name}: {document!r} should be {wanted}: {errors}")


main()
