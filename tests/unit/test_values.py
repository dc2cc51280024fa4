"""`Value` compares, hashes and shows as attrs would."""

from attrs import field, frozen

from memory_core.values import Value


def masked(text):
    return "*" * len(text)


@frozen
class ByAttrs:
    name: str
    secret: str = field(repr=masked)
    size: int = 0
    cached: object = field(default=None, eq=False, repr=False)


@frozen(eq=False, repr=False)
class Place(Value):
    name: str
    secret: str = field(repr=masked)
    size: int = 0
    cached: object = field(default=None, eq=False, repr=False)


@frozen(eq=False, repr=False)
class Town(Place):
    country: str = ""


@frozen(eq=False, repr=False)
class Empty(Value):
    pass


def test_values_are_equal_when_their_fields_are():
    assert Place("a", "b", 1) == Place("a", "b", 1)
    assert hash(Place("a", "b", 1)) == hash(Place("a", "b", 1))
    for other in (Place("x", "b", 1), Place("a", "x", 1), Place("a", "b", 2)):
        assert Place("a", "b", 1) != other
        assert len({Place("a", "b", 1), other}) == 2


def test_a_field_that_is_not_compared_counts_for_nothing():
    one, other = Place("a", "b", cached=[1]), Place("a", "b", cached=[2])
    assert one == other
    assert hash(one) == hash(other)


def test_values_of_two_classes_are_never_equal():
    assert Place("a", "b") != Town("a", "b")
    assert Town("a", "b") != Place("a", "b")
    assert Place("a", "b") != ByAttrs("a", "b")
    assert Place("a", "b") != ("a", "b", 0)
    assert hash(Place("a", "b")) != hash(Town("a", "b"))


def test_a_subclass_compares_and_shows_its_own_fields():
    assert Town("a", "b", country="c") != Town("a", "b", country="d")
    assert repr(Town("a", "b", country="c")) == "Town(name='a', secret=*, size=0, country='c')"


def test_a_value_shows_as_one_of_attrs():
    shown = repr(ByAttrs("a", "secret", 3)).replace("ByAttrs", "Place")
    assert repr(Place("a", "secret", 3)) == shown == "Place(name='a', secret=******, size=3)"


def test_a_class_inside_a_function_shows_its_own_name():
    @frozen(eq=False, repr=False)
    class Inner(Value):
        at: int

    assert repr(Inner(1)) == "Inner(at=1)"


def test_values_without_fields_are_equal():
    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())
    assert repr(Empty()) == "Empty()"
    assert Empty() != Town("a", "b")
