"""Contract: values under keys, which change by compare-and-set, may expire and are listed by prefix."""

from __future__ import annotations

import asyncio

import pytest

from fhir_server.store.contract.case import START, Case, Ticks, put, query, run_on_store, write
from fhir_server.store.operations import Transaction, ValueIs
from fhir_server.store.protocol import VALUES_PER_PAGE, AssertionFailed, Store

SECOND = 1_000_000


async def increment(store: Store, key: str, times: int) -> None:
    """Add one to the number under a key, each time until no other task comes between."""
    for _ in range(times):
        while True:
            before = await store.get_value(key)
            if await store.put_value_if(key, b"%d" % (int(before or b"0") + 1), before):
                break
            await asyncio.sleep(0)


class ValueContract(Case):
    """Compare-and-set values."""

    @run_on_store
    async def test_putting_compares_with_what_is_there(self, store: Store, clock: Ticks) -> None:
        assert await store.get_value("job") is None
        assert await store.put_value_if("job", b"one", b"other") is False
        assert await store.put_value_if("job", b"one", None) is True
        assert await store.put_value_if("job", b"two", None) is False
        assert await store.get_value("job") == b"one"
        both = await asyncio.gather(*(store.put_value_if("job", b"%d" % number, b"one") for number in range(8)))
        assert sum(both) == 1
        assert await store.get_value("other") is None

    @run_on_store
    async def test_a_transaction_asserts_a_value(self, store: Store, clock: Ticks) -> None:
        await store.put_value_if("job", b"one", None)
        await store.put_value_if("brief", b"one", None, expires=START - SECOND)
        there: dict[str, bytes | None] = {"job": b"one", "brief": None, "none": None}
        for key, value in there.items():
            held, other = ValueIs(key, value), ValueIs(key, b"other")
            await store.transact(Transaction(assertions=(held,)))
            await write(store, put(f"Patient/{key}"), assertions=(held, held))
            for assertions in ((other,), (held, other)):
                with pytest.raises(AssertionFailed) as failure:
                    await write(store, put("Patient/z"), assertions=assertions)
                assert failure.value.assertion == other
        assert await store.put_value_if("job", b"two", b"one")
        with pytest.raises(AssertionFailed):
            await store.transact(Transaction((put("Patient/z"),), assertions=(ValueIs("job", b"one"),)))
        assert await store.read("Patient", "z") is None

    @run_on_store
    async def test_what_begins_after_a_value_was_put_sees_it(self, store: Store, clock: Ticks) -> None:
        """Whoever puts a value and waits for open transactions knows that none commits on the value before."""

        async def write_until_refused(number: int) -> int:
            for turn in range(100):
                try:
                    await write(store, put(f"Patient/{number}-{turn}"), assertions=(ValueIs("open", b"yes"),))
                except AssertionFailed:
                    return turn
                await asyncio.sleep(0)
            return 100

        await store.put_value_if("open", b"yes", None)
        writers = [asyncio.ensure_future(write_until_refused(number)) for number in range(3)]
        await asyncio.sleep(0.01)
        assert await store.put_value_if("open", b"no", b"yes")
        await store.wait_for_open_transactions()
        before = await store.count(query("Patient"))
        assert before == sum(await asyncio.gather(*writers)) == await store.count(query("Patient"))

    @run_on_store
    async def test_removing_compares_with_what_is_there(self, store: Store, clock: Ticks) -> None:
        assert await store.remove_value_if("job", b"one") is False
        await store.put_value_if("job", b"one", None)
        assert await store.remove_value_if("job", b"other") is False
        assert await store.get_value("job") == b"one"
        both = await asyncio.gather(*(store.remove_value_if("job", b"one") for _ in range(4)))
        assert sum(both) == 1
        assert await store.get_value("job") is None
        assert await store.put_value_if("job", b"two", b"one") is False
        assert await store.put_value_if("job", b"", None) is True
        assert await store.get_value("job") == b"", "an empty value is a value"
        assert await store.remove_value_if("job", b"") is True

    @run_on_store
    async def test_no_increment_is_lost(self, store: Store, clock: Ticks) -> None:
        await asyncio.gather(*(increment(store, "count", 5) for _ in range(8)))
        assert await store.get_value("count") == b"40"

    @run_on_store
    async def test_an_expired_value_is_absent(self, store: Store, clock: Ticks) -> None:
        assert await store.put_value_if("lease", b"one", None, START + SECOND) is True
        clock.forward(SECOND - 1)
        assert await store.get_value("lease") == b"one"
        assert await store.put_value_if("lease", b"two", None) is False
        clock.forward(1)
        assert await store.get_value("lease") is None
        assert (await store.list_values("")).values == ()
        assert await store.put_value_if("lease", b"two", b"one") is False
        assert await store.remove_value_if("lease", b"one") is False
        taken = (store.put_value_if("lease", b"%d" % number, None, clock.now + SECOND) for number in range(8))
        assert sum(await asyncio.gather(*taken)) == 1
        assert await store.get_value("lease") is not None

    @run_on_store
    async def test_each_put_says_the_expiry_anew(self, store: Store, clock: Ticks) -> None:
        await store.put_value_if("lease", b"one", None, START + SECOND)
        assert await store.put_value_if("lease", b"two", b"one", START + 3 * SECOND) is True
        clock.forward(2 * SECOND)
        assert await store.get_value("lease") == b"two"
        assert await store.put_value_if("other", b"x", None) is True
        assert await store.put_value_if("lease", b"three", b"two") is True
        clock.forward(10 * SECOND)
        await store.put_value_if("other", b"y", b"x")
        assert await store.get_value("lease") == b"three", "without expiry it stays"
        assert await store.put_value_if("lease", b"four", b"three", clock.now) is True
        assert await store.get_value("lease") is None, "what expires now has expired"

    @run_on_store
    async def test_values_are_listed_by_prefix_in_the_order_of_keys(self, store: Store, clock: Ticks) -> None:
        ends = ["", " ", "!", "%", "/", "0", "A", "\\", "_", "a", "a ", "a/b", "é", "\ue000", "\uffff", "\U0001f600"]
        prefixes = ["", "a", "a%", "a_", "a\\", "a.", "a\uffff", "b", "A"]
        keys = sorted({prefix + end for prefix in prefixes for end in ends} - {""})
        for key in reversed(keys):
            assert await store.put_value_if(key, key.encode(), None) is True
        for prefix in [*prefixes, "a\uffff\uffff", "\U0001f600", "nothing"]:
            expected = [(key, key.encode()) for key in keys if key.startswith(prefix)]
            page = await store.list_values(prefix, limit=len(keys))
            assert (list(page.values), page.next) == (expected, None), prefix

    @run_on_store
    async def test_values_are_listed_page_by_page(self, store: Store, clock: Ticks) -> None:
        for number in range(7):
            await store.put_value_if(f"job/{number}", b"x", None, START + (SECOND if number in (2, 4) else 9 * SECOND))
        await store.put_value_if("job0", b"x", None)
        assert len((await store.list_values("job/")).values) == 7 < VALUES_PER_PAGE
        clock.forward(SECOND)
        first = await store.list_values("job/", limit=2)
        assert [key for key, _ in first.values] == ["job/0", "job/1"] and first.next == "job/1"
        second = await store.list_values("job/", first.next, limit=2)
        assert [key for key, _ in second.values] == ["job/3", "job/5"] and second.next == "job/5"
        last = await store.list_values("job/", second.next, limit=2)
        assert [key for key, _ in last.values] == ["job/6"] and last.next is None
        assert (await store.list_values("job/", "a", limit=1)).values == first.values[:1], "before the prefix"
        assert (await store.list_values("job/", "k")).values == (), "behind the prefix"
