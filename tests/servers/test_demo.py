"""The demo's shop, and that its proof would fail."""

import pytest

from everest.demo import shop, story
from everest.demo.compare import dump_all
from everest.demo.manage import StepFailed
from tests.helpers import wait_for


@pytest.fixture(params=["mysql", "mariadb"])
def open_shop(request):
    one = request.getfixturevalue(f"{request.param}_source")
    shop.create(one)
    application = shop.Application(one)
    application.start()
    wait_for(lambda: application.orders > 3)
    yield one, application
    application.stop()
    assert application.error is None


def noted(one):
    with one.connect() as connection:
        return dump_all(connection)


def run(one, statement):
    with one.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_shop_goes_on_when_its_reviews_are_gone_and_stands_still_while_paused(open_shop):
    one, application = open_shop
    with application.paused():
        before = noted(one)
        assert before["shop"]["tables"]["order_items"]["rows"]
        assert not story.compare(before, noted(one))
        run(one, story.MISTAKE)
    count = application.orders
    wait_for(lambda: application.orders > count + 10)


@pytest.mark.parametrize("alteration", [
    "UPDATE shop.customers SET name = 'Zoe 7' WHERE id = 7",
    "DELETE FROM shop.order_items LIMIT 1",
    "ALTER TABLE shop.reviews MODIFY words TEXT NOT NULL",
    "DROP TRIGGER shop.take_from_stock",
])  # fmt: skip
def test_one_altered_row_or_definition_fails_the_proof(open_shop, alteration):
    one, application = open_shop
    with application.paused():
        before = noted(one)
        story.prove(before, one)
        run(one, alteration)
        with pytest.raises(StepFailed, match="is not what it was"):
            story.prove(before, one)
