"""The command that prints the script for the completion of a shell."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Annotated

import typer

from jobhistory.cli.completion import Candidate, candidates, split_line

_BASH = r"""_jobhistory() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$(printf %q "$candidate")")
    done < <("$1" completion bash --line "${COMP_LINE:0:COMP_POINT}" --word "$2" 2>/dev/null)
}
complete -o default -F _jobhistory jobhistory"""

_ZSH = r"""#compdef jobhistory
_jobhistory() {
    local value text
    local -a values texts
    while IFS=$'\t' read -r value text; do
        values+=("$value")
        texts+=("$value${text:+  -- $text}")
    done < <("$words[1]" completion zsh --line "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)
    if (( $#values )); then
        compadd -l -d texts -a values
    else
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _jobhistory "$@"
else
    compdef _jobhistory jobhistory
fi"""

_FISH = r"""function __jobhistory_complete
    set -l found (jobhistory completion fish --line (commandline -cp) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c jobhistory -f -a '(__jobhistory_complete)'"""


class Shell(StrEnum):
    """A shell that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_SCRIPTS = {Shell.BASH: _BASH, Shell.ZSH: _ZSH, Shell.FISH: _FISH}


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="Your shell: bash, zsh or fish.", metavar="SHELL")],
    line: Annotated[
        str | None, typer.Option(hidden=True, help="The line up to the cursor.", metavar="TEXT")
    ] = None,
    word: Annotated[
        str | None, typer.Option(hidden=True, help="The word that bash replaces.", metavar="TEXT")
    ] = None,
) -> None:
    """Print the script that completes commands, options and values in your shell.

    Tasks, workers, labels, ids and types of errors come from history, if the database answers
    within a second.
    """
    if line is None:
        print(_SCRIPTS[shell])
        return
    words = split_line(line)
    logging.disable()  # a shell would print it into the line that is being typed
    try:
        for each in candidates(context.find_root().command, words[1:]):
            _print(each, words[-1], shell, word)
    finally:
        logging.disable(logging.NOTSET)


def _print(candidate: Candidate, typed: str, shell: Shell, word: str | None) -> None:
    if shell is not Shell.BASH:
        print("\t".join(filter(None, candidate)))
        return
    # To bash, a colon or an equals sign begins another word.
    is_part = word is not None and typed.endswith(word)
    kept = len(typed) - len(word or "") if is_part else 0
    print(candidate.word[kept:])
