"""Examples for the help of each command."""

from __future__ import annotations

_APP = "--app shop.tasks:app"

EXAMPLES = {
    "run": (
        "jobhistory run -- ./backup.sh --full",
        "jobhistory run --task backup --retention '1 year' -- ./backup.sh",
        "jobhistory run --task backup --expect '17 2 * * *' --grace 15m -- ./backup.sh",
    ),
    "list": (
        "jobhistory list --status failed --since today",
        "jobhistory list --task send_email,charge_card --since yesterday --until today",
        "jobhistory list --worker-prefix web-1: --min-time 30s --json",
    ),
    "tail": (
        "jobhistory tail --task send_email",
        "jobhistory tail --status failed -n 0",
    ),
    "show": (
        "jobhistory show order-7",
        "jobhistory show 019ac123",
    ),
    "stats": (
        "jobhistory stats --since 7d --bucket 1d",
        "jobhistory stats --task charge_card --since monday --exact",
    ),
    "failures": (
        "jobhistory failures --since today",
        "jobhistory failures --since 7d --error-contains 'timed out'",
        "jobhistory failures --new",
    ),
    "running": (
        "jobhistory running",
        "jobhistory running --since 24h --task import_feed",
    ),
    "workers": (
        "jobhistory workers --since today",
        "jobhistory workers --worker-prefix web-1:",
    ),
    "metrics": (
        "jobhistory metrics",
        "jobhistory metrics --textfile /var/lib/node_exporter/jobhistory.prom",
    ),
    "web": (
        "jobhistory web",
        "jobhistory web --port 8000 --title 'The jobs of our shop'",
    ),
    "replay": (
        f"jobhistory replay {_APP} --failed --since 2h --dry-run",
        f"jobhistory replay {_APP} 019ac123-0000-7000-8000-000000000001",
    ),
    "check": (
        "jobhistory check --all",
        "jobhistory check --task backup --format nagios",
        "jobhistory check --heartbeat https://hc.example.org/ping/3f2c",
    ),
    "incidents": (
        "jobhistory incidents --since 7d",
        "jobhistory incidents --open --task backup",
    ),
    "expect list": ("jobhistory expect list --json",),
    "expect show": ("jobhistory expect show backup",),
    "expect add": (
        "jobhistory expect add backup --every 1d --max-runtime 2h",
        "jobhistory expect add report --cron '17 2 * * *' --grace 15m --owner 'billing team'",
    ),
    "expect edit": ("jobhistory expect edit backup --grace 30m --owner ''",),
    "expect remove": ("jobhistory expect remove backup",),
    "expect import": (
        "jobhistory expect import --crontab --dry-run",
        "jobhistory expect import --crontab /etc/crontab /etc/cron.d --prune",
        f"jobhistory expect import {_APP} --grace 15m",
    ),
    "expect pause": ("jobhistory expect pause backup --until 'monday 9:00'",),
    "expect resume": ("jobhistory expect resume backup",),
    "expect load": (
        "jobhistory expect load expectations.toml",
        "jobhistory expect load expectations.toml --prune",
    ),
    "expect export": ("jobhistory expect export --task backup,report",),
    "expire": (
        "jobhistory expire",
        "jobhistory expire --rules retention.toml --time-limit '5 minutes'",
    ),
    "fold": (
        "jobhistory fold",
        "jobhistory fold --recount 2026-11-28T12:00 2026-11-28T14:00",
    ),
    "retention": ("jobhistory retention --rules retention.toml",),
    "purge": (
        "jobhistory purge --label tenant=acme --dry-run",
        "jobhistory purge --task old_task --until 2026-01-01 --yes",
    ),
    "reap": (
        "jobhistory reap --older-than 2h",
        "jobhistory reap --heartbeat-older-than '1 min' --task import_feed",
    ),
    "archive sql": (
        "jobhistory archive sql /srv/archive 'SELECT day, count(*) FROM job_history GROUP BY day'",
        "jobhistory archive sql s3://backups/history",
    ),
    "archive verify": ("jobhistory archive verify /srv/archive",),
    "archive restore": (
        "jobhistory archive restore /srv/archive --from 2026-10-01 --to 2026-10-08",
        "jobhistory archive restore s3://backups/history --into job_history_october",
    ),
    "archive delete": (
        "jobhistory archive delete /srv/archive --label tenant=acme --dry-run",
        "jobhistory archive delete /srv/archive --correlation-id order-7 --yes",
    ),
    "demo": (
        "jobhistory demo",
        "jobhistory demo /tmp/shop.db",
    ),
    "completion": (
        "jobhistory completion bash >> ~/.bashrc",
        "jobhistory completion zsh > ~/.zfunc/_jobhistory",
        "jobhistory completion fish > ~/.config/fish/completions/jobhistory.fish",
    ),
    "help": (
        "jobhistory help list",
        "jobhistory help db upgrade",
    ),
    "db upgrade": (
        "jobhistory db upgrade --url postgresql://app@localhost/shop",
        "jobhistory db upgrade --schema audit",
    ),
    "db downgrade": ("jobhistory db downgrade base",),
    "db current": ("jobhistory db current",),
    "db check": ("jobhistory db check --json",),
    "db maintain": ("jobhistory db maintain --verbose",),
    "db partition": (
        "jobhistory db partition",
        "jobhistory db partition --every day --ahead 7",
        "jobhistory db partition --undo",
    ),
    "db distribute": ("jobhistory db distribute --url postgresql://owner@coordinator/shop",),
    "db sql": (
        "jobhistory db sql --url postgresql://",
        "jobhistory db sql jobhistory_0011:head --url postgresql:// --schema audit",
    ),
}
"""For each command, how people call it."""
