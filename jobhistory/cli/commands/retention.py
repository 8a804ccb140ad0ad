"""The command that shows the retention rules, and what `expire` would do by each."""

from __future__ import annotations

from jobhistory.cli import output
from jobhistory.cli.database import open_store_with_rules
from jobhistory.cli.options import DefaultRetention, Json, Rules, Schema, Url
from jobhistory.cli.screens.retention import print_retention
from jobhistory.cli.screens.screen import Screen


def retention(
    rules: Rules = None,
    retention: DefaultRetention = None,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show the retention rules in order, and what expire would change and delete by each.

    Without --rules, they are those that expire has applied last. The command reads all of history
    and changes nothing.
    """
    with open_store_with_rules(url, schema, rules, retention) as store:
        found = store.retention()
    if json:
        for each in found:
            output.print_json(each.to_dict())
    else:
        print_retention(Screen(), found)
