"""A hosting company's support desk, as a tau-bench result file."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

__all__ = ["write"]

_TRIALS = 2
_POLICY = """# Hosting agent policy

The current time is 2025-03-03 09:00:00 UTC.

You look after the customers of a hosting company.

- Identify the customer before anything else, by e-mail address or account number.
- Say what a change costs, and wait for a clear yes, before you make it.
- Credit for an outage is one day for every started hour, at most a month, and only where the status
  page confirms the outage.
- A domain can be moved out 60 days after it was registered, not sooner.
- What you cannot do you hand over with open_ticket."""

_FIRST = ("Amara", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas")
_LAST = ("Abiola", "Brandt", "Costa", "Dahl", "Esposito", "Fournier", "Gruber", "Haas", "Ito")


class _Call(NamedTuple):
    tool: str
    arguments: dict[str, Any]
    result: str


class _Task(NamedTuple):
    """What a customer wants; the last call is the one that decides."""

    instruction: str
    opening: str
    calls: tuple[_Call, ...]
    offer: str
    closing: str
    refusal: str


def _json(**values: Any) -> str:
    return json.dumps(values)


_TASKS = (
    _Task(
        "You are {name}. Your shop has outgrown its plan: move it to 'grove'. You accept up to 30 a month.",
        "Hi, my shop is slow every evening. Can I get a bigger plan?",
        (
            _Call("list_plans", {}, _json(sprout=9, grove=29, forest=79)),
            _Call("change_plan", {"account": "{account}", "plan": "grove"}, _json(plan="grove", due=14.5)),
        ),
        "The plan 'grove' is 29 a month; for the rest of this month you would pay 14.50. Shall I change it?",
        "Your account is on 'grove' now.",
        "Error: change_plan: the card on file has expired",
    ),
    _Task(
        "You are {name}. Your site was down last Tuesday and you want credit for it.",
        "Your servers were down on Tuesday. I want my money back.",
        (
            _Call("get_outages", {"day": "2025-02-25"}, _json(region="north", hours=2.4, confirmed=True)),
            _Call("add_credit", {"account": "{account}", "days": 3}, _json(credit_days=3)),
        ),
        "I am sorry. The outage took 2.4 hours, which makes three days of credit. May I add them?",
        "Three days are credited to your account.",
        "Error: add_credit: account {account} is served from another region",
    ),
    _Task(
        "You are {name}. You want the key to move '{domain}' to another registrar.",
        "I need the transfer key of my domain, please.",
        (
            _Call("get_domain", {"domain": "{domain}"}, _json(registered="2022-06-11", locked=True)),
            _Call("unlock_domain", {"domain": "{domain}"}, _json(locked=False)),
            _Call("send_transfer_key", {"domain": "{domain}"}, _json(sent_to="owner")),
        ),
        "I can unlock {domain} and send the key to its owner's address. It costs nothing. Shall I?",
        "The key for {domain} is on its way to your inbox.",
        "Error: send_transfer_key: the owner's address is not verified",
    ),
    _Task(
        "You are {name}. Mail to '{domain}' bounces. You want a mail record that points to mx.post.example.",
        "Nobody can send me mail since I moved my domain.",
        (
            _Call("list_records", {"domain": "{domain}"}, _json(A="192.0.2.7", MX=None)),
            _Call(
                "put_record",
                {"domain": "{domain}", "type": "MX", "value": "mx.post.example", "priority": 10},
                _json(serial=2025030301),
            ),
        ),
        "There is no mail record. I would add mx.post.example with priority 10. All right?",
        "The record is there; mail should arrive within the hour.",
        "Error: put_record: the zone of {domain} is served by other name servers",
    ),
    _Task(
        "You are {name}. Your server hangs. You want it restarted, not reinstalled.",
        "My server does not answer any more, not even to ping!",
        (
            _Call("get_server", {"account": "{account}"}, _json(id="{server}", state="stuck", load=212.0)),
            _Call("restart_server", {"id": "{server}", "hard": True}, _json(state="running", seconds=41)),
        ),
        "It hangs with a load of 212. A hard restart may lose what is not on disk yet. Shall I do it?",
        "It is up again after 41 seconds.",
        "Error: restart_server: the host is under maintenance until 11:00",
    ),
    _Task(
        "You are {name}. You want to close your account and to be told what you paid in all: 348.",
        "Please close my account. How much have I paid you over the years?",
        (
            _Call("sum_invoices", {"account": "{account}"}, "348.00"),
            _Call("close_account", {"account": "{account}", "on": "2025-03-31"}, _json(closes="2025-03-31")),
        ),
        "You paid 348.00 in all. I can close the account on 31 March; nothing is charged again. Yes?",
        "Your account closes on 31 March. Goodbye, and thank you.",
        "Error: close_account: a domain is still registered to {account}",
    ),
)  # fmt: skip


def write(folder: Path, random: Random) -> list[Path]:
    """Write the result file: every task, tried twice."""
    customers = [_customer(random) for _ in _TASKS]
    results = [
        _result(random, number, trial, task, customers[number])
        for trial in range(_TRIALS)
        for number, task in enumerate(_TASKS)
    ]
    path = folder / "support-desk.json.gz"
    path.write_bytes(gzip.compress(json.dumps(results, indent=1).encode(), mtime=0))
    return [path]


def _customer(random: Random) -> dict[str, str]:
    first, last = random.choice(_FIRST), random.choice(_LAST)
    handle = f"{first}.{last}".lower()
    return {
        "name": f"{first} {last}",
        "email": f"{handle}@mail.example",
        "account": f"acc-{random.randrange(10_000, 99_999)}",
        "server": f"srv-{random.randrange(100, 999)}",
        "domain": f"{last.lower()}-{random.choice(('studio', 'bakery', 'archive'))}.example",
    }


def _filled(value: Any, customer: dict[str, str]) -> Any:
    text = json.dumps(value)
    for key, word in customer.items():
        text = text.replace(f"{{{key}}}", word)
    return json.loads(text)


def _result(
    random: Random, number: int, trial: int, task: _Task, customer: dict[str, str]
) -> dict[str, Any]:
    succeeds = random.random() < 0.65
    reward = 1.0 if succeeds else 0.0
    actions = [{"name": call.tool, "kwargs": call.arguments} for call in task.calls]
    entry = {
        "task_id": number,
        "reward": reward,
        "info": {
            "task": {
                "user_id": customer["email"],
                "instruction": task.instruction,
                "actions": actions,
                "outputs": [],
            },
            "source": "user",
            "user_cost": round(random.uniform(0.001, 0.006), 6),
            "reward_info": {"reward": reward, "info": {"r_actions": reward}, "actions": actions},
        },
        "traj": _conversation(random, task, customer, succeeds=succeeds),
        "trial": trial,
    }
    return _filled(entry, customer)


def _conversation(
    random: Random, task: _Task, customer: dict[str, str], *, succeeds: bool
) -> list[dict[str, Any]]:
    greeting = random.choice(("Of course.", "I will have a look.", "Sorry for the trouble."))
    account = _json(account=customer["account"], name=customer["name"], since=2021)
    identify = _Call("find_customer", {"email": customer["email"]}, account)
    *lookups, decisive = task.calls
    messages = [
        _said("system", _POLICY),
        _said("user", task.opening),
        _said("assistant", f"{greeting} What is your e-mail address?"),
        _said("user", customer["email"]),
    ]
    for call in (identify, *lookups):
        messages += _called(random, call)
    messages += [
        _said("assistant", task.offer),
        _said("user", random.choice(("Yes, please.", "Yes, go ahead.", "Do it."))),
    ]
    if succeeds:
        messages += [*_called(random, decisive), _said("assistant", task.closing)]
    elif random.random() < 0.5:
        messages += _called(random, decisive._replace(result=task.refusal))
        ticket = _Call(
            "open_ticket", {"account": "{account}", "about": task.opening}, '{"ticket": 5120}'
        )
        messages += [
            *_called(random, ticket),
            _said("assistant", "A colleague will get back to you."),
        ]
    else:
        messages.append(_said("assistant", f"{task.closing} Is there anything else?"))
    thanks = random.choice(("Thank you!", "Perfect, thanks.", "Great."))
    return [*messages, _said("user", thanks if succeeds else "Hm. All right.")]


def _said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _called(random: Random, call: _Call) -> list[dict[str, Any]]:
    call_id = f"call_{random.getrandbits(64):016x}"
    function = {"name": call.tool, "arguments": json.dumps(call.arguments)}
    return [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call_id, "name": call.tool, "content": call.result},
    ]
