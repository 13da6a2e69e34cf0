"""The commands `emoprobe import` and `emoprobe export`."""

from __future__ import annotations

import argparse
from pathlib import Path

FORMATS = {
    "inspect": "one log of Inspect a variant (needs the extra `inspect`)",
    "dataset": "a data set of Hugging Face: Parquet and a card",
    "csv": "a table as CSV",
    "latex": "a table as LaTeX with booktabs",
}


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `emoprobe import`."""
    parser.description = (
        "Read conversations of other tools and write them as a folder for `emoprobe analyze`: logs of Inspect (.eval, "
        ".json), samples of lm-evaluation-harness (samples_*.jsonl), or messages in OpenAI's form (.jsonl, .json, "
        ".parquet, .csv). Recorded scores are kept as grades."
    )
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="file, or folder of files")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FOLDER", help="new folder")
    parser.add_argument("--format", choices=("inspect", "lm-eval", "messages"), help="default: from names and content")
    parser.add_argument(
        "--variant",
        metavar="FIELD",
        help="field whose value names the variant, such as task_args.tone, model, task or metadata.tone (default: "
        "task_args.variant of Inspect, task of lm-evaluation-harness, variant of tables)",
    )
    parser.add_argument(
        "--prefix",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="conversations with a system or user message that begins with TEXT are of variant NAME, those without "
        "any of these texts of `control`; repeat it for each variant",
    )
    parser.add_argument(
        "--reference", metavar="VALUE", help="value of the variant that the others are compared with; named `control`"
    )
    parser.add_argument("--id", metavar="FIELD", help="field that identifies the question across variants")
    parser.add_argument("--gold", metavar="FIELD", help="field of the gold answer")
    parser.add_argument("--score", metavar="NAME", help="score that says what is correct (default: the first)")
    parser.add_argument("--group", metavar="FIELD", help="field of the question's group, such as its template")
    parser.add_argument("--filter", metavar="NAME", help="filter of lm-evaluation-harness (default: the first)")
    parser.add_argument("--regrade", action="store_true", help="grade completions again instead of keeping scores")
    parser.set_defaults(run=_import)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `emoprobe export`."""
    parser.description = "Write results in the formats of other tools. " + "; ".join(
        f"{name}: {meaning}" for name, meaning in FORMATS.items()
    )
    parser.add_argument("folder", type=Path, help="folder of an experiment, or any folder of conversations")
    parser.add_argument("--format", choices=tuple(FORMATS), required=True)
    parser.add_argument("--table", metavar="NAME", help="table for csv and latex, such as accuracy")
    parser.add_argument("--output", "-o", type=Path, required=True, help="new file, or folder of inspect and dataset")
    parser.set_defaults(run=_export)


def _import(arguments: argparse.Namespace) -> int:
    from emoprobe.exchange.conversation import ExchangeError
    from emoprobe.exchange.importing import FieldMapping, import_conversations
    from emoprobe.exchange.sources import open_conversations

    if arguments.variant and arguments.prefix:
        raise ExchangeError("choose --variant or --prefix, not both")
    pairs = [text.partition("=") for text in arguments.prefix]
    if not all(name and text for name, _, text in pairs):
        raise ExchangeError("--prefix must be NAME=TEXT, such as --prefix 'angry=I am furious'")
    mapping = FieldMapping(
        variant=arguments.variant,
        prefixes={name: text for name, _, text in pairs},
        reference=arguments.reference,
        id=arguments.id,
        gold=arguments.gold,
        group=arguments.group,
        score=arguments.score,
        regrade=arguments.regrade,
    )
    opened = open_conversations(arguments.sources, mapping, arguments.format, arguments.filter)
    imported = import_conversations(opened.conversations, arguments.output, opened.mapping, opened.format)
    for variant, count in imported.variants.items():
        print(f"{variant}: {count} conversations")
    print(f"{imported.samples} questions in {arguments.output}; next: emoprobe analyze {arguments.output}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from emoprobe.exchange.conversation import ExchangeError

    needs_table = arguments.format in ("csv", "latex")
    if needs_table != (arguments.table is not None):
        raise ExchangeError(f"--table is {'needed' if needs_table else 'not used'} with --format {arguments.format}")
    if arguments.format == "inspect":
        from emoprobe.exchange.inspect_writer import write_logs

        for path in write_logs(arguments.folder, arguments.output):
            print(path)
        return 0
    from emoprobe.exchange import export

    if arguments.format == "dataset":
        print(export.write_dataset(arguments.folder, arguments.output))
    else:
        write = export.write_csv if arguments.format == "csv" else export.write_latex
        print(write(arguments.folder, arguments.table, arguments.output))
    return 0
