"""The sample schema of the demo, and an application that keeps taking orders."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pymysql

from everest.demo.servers import Server

NO_SUCH_TABLE = 1146
ORDERS_A_SECOND = 20
SCHEMA = """
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE TABLE shop.customers (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(100) NOT NULL,
  email VARCHAR(190) CHARACTER SET latin1 NOT NULL,
  joined TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  UNIQUE KEY by_email (email)
);
CREATE TABLE shop.products (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(100) NOT NULL,
  price DECIMAL(10,2) NOT NULL,
  weight FLOAT,
  colours SET('red','green','blue'),
  details JSON,
  stock INT NOT NULL DEFAULT 10000
);
CREATE TABLE shop.orders (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer INT UNSIGNED NOT NULL,
  state ENUM('new','paid','sent') NOT NULL DEFAULT 'new',
  total DECIMAL(12,2) NOT NULL DEFAULT 0,
  placed DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  month INT GENERATED ALWAYS AS (YEAR(placed) * 100 + MONTH(placed)) STORED,
  KEY by_month (month),
  CONSTRAINT placed_by FOREIGN KEY (customer) REFERENCES shop.customers (id)
);
CREATE TABLE shop.order_items (
  order_id BIGINT UNSIGNED NOT NULL,
  line SMALLINT UNSIGNED NOT NULL,
  product INT UNSIGNED NOT NULL,
  quantity INT NOT NULL,
  PRIMARY KEY (order_id, line),
  CONSTRAINT part_of FOREIGN KEY (order_id) REFERENCES shop.orders (id) ON DELETE CASCADE,
  CONSTRAINT of_product FOREIGN KEY (product) REFERENCES shop.products (id)
);
CREATE TABLE shop.reviews (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  product INT UNSIGNED NOT NULL,
  stars TINYINT NOT NULL,
  words TEXT,
  photo VARBINARY(64)
);
CREATE VIEW shop.revenue AS SELECT month, COUNT(*) AS orders, SUM(total) AS total FROM shop.orders GROUP BY month;
CREATE TRIGGER shop.take_from_stock AFTER INSERT ON shop.order_items
  FOR EACH ROW UPDATE shop.products SET stock = stock - NEW.quantity WHERE id = NEW.product;
CREATE PROCEDURE shop.restock(IN amount INT) UPDATE shop.products SET stock = stock + amount;
CREATE EVENT shop.tidy ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.reviews WHERE stars = 0;
"""
CUSTOMERS = [(f"Zoë {n}", f"zoë{n}@shop.example") for n in range(200)]
PRODUCTS = [(f"Thing {n} 🧗", n * 1.25, n / 3, "red,blue", f'{{"height": {n}}}') for n in range(1, 51)]


def create(server: Server) -> None:
    """Make the schema, and the people and things that orders are about."""
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in SCHEMA.split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        cursor.executemany("INSERT INTO shop.customers (name, email) VALUES (%s, %s)", CUSTOMERS)
        cursor.executemany(
            "INSERT INTO shop.products (name, price, weight, colours, details) VALUES (%s, %s, %s, %s, %s)", PRODUCTS
        )


class Application(threading.Thread):
    """Takes orders until it is stopped.  error: what ended it, where nobody stopped it."""

    def __init__(self, server: Server) -> None:
        super().__init__(name="shop", daemon=True)
        self.server = server
        self.orders = 0
        self.error: Exception | None = None
        self._between = threading.Lock()
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            with self.server.connect(autocommit=False) as connection:
                while not self._ended.wait(1 / ORDERS_A_SECOND):
                    with self._between:
                        order(connection)
                        self.orders += 1
        except pymysql.Error as error:
            self.error = error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No transaction is open or begun while inside."""
        with self._between:
            yield

    def stop(self) -> None:
        self._ended.set()
        self.join()


def order(connection: pymysql.Connection) -> None:
    """One transaction: an order of a few things, and now and then a review or a payment."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO shop.orders (customer) VALUES (%s)", (random.randint(1, len(CUSTOMERS)),))
        number = cursor.lastrowid
        for line in range(random.randint(1, 4)):
            item = (number, line, random.randint(1, len(PRODUCTS)), random.randint(1, 5))
            cursor.execute("INSERT INTO shop.order_items VALUES (%s, %s, %s, %s)", item)
        cursor.execute(
            "UPDATE shop.orders SET total = (SELECT SUM(quantity * price) FROM shop.order_items"
            " JOIN shop.products ON products.id = product WHERE order_id = %s), state = 'paid' WHERE id = %s",
            (number, number),
        )
        if random.random() < 0.3:
            _review(cursor)
    connection.commit()


def _review(cursor: pymysql.cursors.Cursor) -> None:
    """The application goes on without reviews where somebody has dropped them."""
    words = (random.randint(1, len(PRODUCTS)), random.randint(1, 5), "Gipfel erreicht ⛰", random.randbytes(16))
    try:
        cursor.execute("INSERT INTO shop.reviews (product, stars, words, photo) VALUES (%s, %s, %s, _binary %s)", words)
    except pymysql.err.ProgrammingError as error:
        if error.args[0] != NO_SUCH_TABLE:
            raise
