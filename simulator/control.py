"""
The control API: JSON over HTTP under `/_control/`.

    GET    state                     settings, faults, calls in flight and counts, by label
    PUT    faults/<label>            set one fault, or a list; each call meets the first that is due
    DELETE faults/<label>            heal: remove the faults, and let a refusing port listen again
    PUT    settings/<label>          set how the label answers while healthy; other settings stay
    DELETE settings/<label>          restore the defaults
    GET    hits?since=&label=&limit= the log after a sequence number
    DELETE hits?label=               remove the hits of one label, or all
    POST   release/<label>           answer held calls: `{"count": N}`, or all and later ones
    POST   reset                     remove everything except ports and the numbering of hits
    POST   ports/<label>             open a separate port for the label, or let it listen again
    DELETE ports/<label>             refuse connections on that port
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from simulator.faults import BadOrder, Fault, check_number
from simulator.hits import HitLog
from simulator.labels import Labels, Settings
from simulator.ports import Ports

HITS_LIMIT = 10_000


class Control:
    """Runs the commands of the control API."""

    def __init__(self, labels: Labels, hits: HitLog, ports: Ports) -> None:
        self._labels = labels
        self._hits = hits
        self._ports = ports

    async def obey(self, method: str, path: str, query: Mapping[str, str], order: Any) -> Any:
        """
        Carry out one order and return its JSON answer.

        Raises:
            BadOrder: The order is not valid; nothing has changed.
            LookupError: There is no such order.
        """
        noun, _, label = path.partition("/")
        orders: dict[str, Callable[[], Any]] = {
            "GET state": self._state,
            "GET hits": lambda: self._hits.since(
                int(query.get("since", 0)), query.get("label"), int(query.get("limit", HITS_LIMIT))
            ),
            "DELETE hits": lambda: self._hits.forget(query.get("label")),
            "PUT faults": lambda: self._set_faults(label, order),
            "DELETE faults": lambda: self._heal(label),
            "PUT settings": lambda: self._set(label, order),
            "DELETE settings": lambda: self._forget_settings(label),
            "POST release": lambda: self._release(label, order),
            "POST reset": self._reset,
            "POST ports": lambda: self._ports.open(label),
            "DELETE ports": lambda: self._ports.refuse(label),
        }
        if (name := f"{method} {noun}") not in orders:
            raise LookupError(f"no such order: {method} {path}")
        result = orders[name]()
        return await result if inspect.isawaitable(result) else result

    def _set_faults(self, label: str, order: Any) -> None:
        orders = order if isinstance(order, list) else [order]
        self._labels[label].set_faults([Fault.read(_object(each)) for each in orders])

    def _set(self, label: str, order: Any) -> None:
        self._labels[label].set(_object(order))

    def _forget_settings(self, label: str) -> None:
        self._labels[label].set({field.name: None for field in fields(Settings)})

    def _release(self, label: str, order: Any) -> int:
        count = _object(order).get("count")
        if count is not None:
            check_number("count", count)
        return self._labels[label].release(count if count is None else int(count))

    async def _reset(self) -> None:
        for name in list(self._labels):
            await self._heal(name)
            # Released last: a call that began before the reset and reaches its latency only
            # now would be held by a label that no command can release any more.
            self._labels.pop(name).release()
        self._hits.forget(None)

    async def _heal(self, label: str) -> None:
        self._labels[label].set_faults([])
        await self._ports.accept(label)

    def _state(self) -> dict[str, Any]:
        ports = self._ports.numbers()
        return {
            name: {
                **label.as_dict(),
                "in_flight": self._hits.in_flight[name],
                "hits": self._hits.counts[name],
                "port": ports.get(name),
            }
            for name, label in self._labels.items()
        }


def _object(order: Any) -> Mapping[str, Any]:
    if not isinstance(order, dict):
        raise BadOrder(f"expected a JSON object, not {order!r}")
    return order
