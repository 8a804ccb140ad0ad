"""A Flask app with Flask-SQLAlchemy that records its jobs, some of them in its own transactions.

Install and run it with::

    pip install jobhistory flask flask-sqlalchemy
    flask --app flask_app create-tables             # instance/flask_app.db, an SQLite file
    flask --app flask_app add-orders 1 2 13
    flask --app flask_app ship-orders               # a job for each order; order 13 fails
    flask --app flask_app history
    flask --app flask_app run                       # then: curl -X POST localhost:5000/report
                                                    # and:  curl localhost:5000/history

An order and the record that it was shipped are committed in one transaction, so there is never one
without the other. If shipping fails, the order is rolled back, and the failure is recorded anyway.

For another database, set ``DATABASE_URL``.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from uuid import uuid4

import click
from flask import Flask, Response, current_app, jsonify, request
from flask.cli import with_appcontext
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobhistory import HistoryStore, InvalidInput, Job, create_store, migrate

WORKER = f"{socket.gethostname()}:{os.getpid()}"


class Base(DeclarativeBase):
    """The base of the app's models."""


db = SQLAlchemy(model_class=Base)


class Order(db.Model):
    """An order, and whether it has been shipped."""

    id: Mapped[int] = mapped_column(primary_key=True)
    is_shipped: Mapped[bool] = mapped_column(default=False)


def history() -> HistoryStore:
    """Return the store of the app."""
    store: HistoryStore = current_app.extensions["jobhistory"]
    return store


def create_app() -> Flask:
    """Make the app, with one store on the engine of Flask-SQLAlchemy."""
    app = Flask(__name__)
    url = os.environ.get("DATABASE_URL", "sqlite:///flask_app.db")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db.init_app(app)
    with app.app_context():  # without it, Flask-SQLAlchemy has no engine
        app.extensions["jobhistory"] = create_store(db.engine, history_retention="90 days")
    app.cli.add_command(create_tables)
    app.cli.add_command(add_orders)
    app.cli.add_command(ship_orders)
    app.cli.add_command(print_history)
    app.add_url_rule("/report", view_func=report, methods=["POST"])
    app.add_url_rule("/history", view_func=list_history)
    return app


def ship(order: Order, run_id: str) -> None:
    """Ship an order: its new state and its history are one transaction."""
    job = Job(f"ship-{order.id}", "ship_order", {"order": order.id})
    with history().in_session(db.session).track(job, WORKER, correlation_id=run_id):
        if order.id == 13:
            raise LookupError(f"no address for order {order.id}")
        order.is_shipped = True
        db.session.flush()


@click.command("create-tables")
@with_appcontext
def create_tables() -> None:
    """Create the tables of the app, and the history table."""
    db.create_all()
    migrate.upgrade(db.engine)


@click.command("add-orders")
@click.argument("numbers", type=int, nargs=-1)
@with_appcontext
def add_orders(numbers: tuple[int, ...]) -> None:
    """Add orders with these numbers, unless they exist."""
    for number in numbers:
        db.session.merge(Order(id=number))
    db.session.commit()


@click.command("ship-orders")
@with_appcontext
def ship_orders() -> None:
    """Ship the orders that have not been shipped."""
    run_id = str(uuid4())
    numbers = db.session.scalars(select(Order.id).where(Order.is_shipped.is_(False))).all()
    for number in numbers:
        try:
            ship(db.session.get_one(Order, number), run_id)
            db.session.commit()
            click.echo(f"order {number}: shipped")
        except LookupError as error:
            db.session.rollback()  # the store records the failure now
            click.echo(f"order {number}: {error}")


@click.command("history")
@with_appcontext
def print_history() -> None:
    """Print the last 20 executions."""
    for record in history().query(limit=20):
        error = record.error_message or ""
        click.echo(f"{record.job_id} {record.status} {error}".rstrip())


def report() -> dict[str, Any]:
    """Make a report. It changes nothing of the app, so the store uses transactions of its own."""
    job = Job(str(uuid4()), "report")
    request_id = request.headers.get("X-Request-Id", job.id)
    with history().track(job, WORKER, correlation_id=request_id) as execution:
        shipped = db.session.scalars(select(Order.id).where(Order.is_shipped)).all()
        waiting = db.session.scalars(select(Order.id).where(Order.is_shipped.is_(False))).all()
        if waiting:
            execution.partial_success({"failed_steps": [f"ship-{number}" for number in waiting]})
    return {"job_id": job.id, "shipped": list(shipped), "waiting": list(waiting)}


def list_history() -> Response | tuple[Response, int]:
    """Return a page of executions as JSON, with the cursor of the next page."""
    try:
        page = history().page(limit=20, after=request.args.get("after"))
    except InvalidInput as error:  # a wrong cursor; the message quotes it, so it is never HTML
        return jsonify(error=str(error)), 422
    return jsonify(page.to_dict())
