"""Accounts, sessions, tokens and invitations on a real database: what lasts, what ends, who is kept."""

from datetime import timedelta

import pytest

from palate.config import UserError
from palate.data.records import Annotator
from palate.data.store import Store, now
from palate.labeling import credentials
from palate.labeling.invitations import Invitations
from palate.labeling.people import People, Person, Refused, clean_name
from palate.labeling.throttle import Throttle, network_of


@pytest.fixture
def people(store: Store) -> People:
    return People(store)


@pytest.fixture
def admin(people: People) -> Person:
    return people.create("Ada", "admin")


def test_sessions_and_tokens_survive_a_restart_and_are_not_stored(store: Store, people: People) -> None:
    anna = people.create("Anna")
    secret, (token, _) = people.open_session(anna.id), people.make_token(anna.id, "laptop")
    again = People(store)
    assert again.by_session(secret) == anna
    found = again.by_token(token)
    assert found is not None and (found.id, found.via) == (anna.id, "token")
    kept = str(store.rows("SELECT * FROM login_session") + store.rows("SELECT * FROM access_token"))
    assert secret not in kept and token not in kept and token.startswith("palate_")
    for forged in ("", "x", secret[:-1], secret + "x", credentials.sha256(secret), token):
        assert again.by_session(forged) is None
    assert again.by_token(secret) is None


def test_what_has_expired_opens_nothing(store: Store, people: People) -> None:
    anna = people.create("Anna")
    secret, (token, _) = people.open_session(anna.id), people.make_token(anna.id, "x", now() - timedelta(1))
    assert people.by_token(token) is None
    people._until[credentials.sha256(secret)] = now() - timedelta(seconds=1)
    assert people.by_session(secret) is None
    store.write("UPDATE login_session SET expires_at = ?", [now() - timedelta(1)])
    assert People(store).by_session(secret) is None
    assert store.value("SELECT count(*) FROM login_session") == 0


def test_a_session_lasts_thirty_days_from_its_last_use(store: Store, people: People) -> None:
    anna = people.create("Anna")
    secret = people.open_session(anna.id)
    renew, save = people.touch(anna, secret)
    assert not renew and save is not None
    save()
    assert people.touch(anna, secret) == (False, None)  # seen a moment ago: nothing to write
    people._until[credentials.sha256(secret)] = now() + timedelta(days=3)
    renew, save = people.touch(anna, secret)
    assert renew and save is not None
    save()
    assert store.value("SELECT expires_at FROM login_session") > now() + timedelta(days=29)
    assert People(store).last_seen(anna.id) is not None


def test_a_disabled_account_loses_everything_at_once(store: Store, people: People, admin: Person) -> None:
    anna = people.create("Anna")
    secret, (token, _) = people.open_session(anna.id), people.make_token(anna.id, "laptop")
    people.set_active(anna.id, False)
    for now_or_later in (people, People(store)):
        assert now_or_later.by_session(secret) is now_or_later.by_token(token) is None
        assert now_or_later.person(anna.id) is None
    people.set_active(anna.id, True)
    assert people.person(anna.id) == anna
    assert people.by_session(secret) is None and people.by_token(token) is None  # they don't come back


def test_a_new_password_and_logging_out_end_sessions(people: People) -> None:
    anna, ben = people.create("Anna"), people.create("Ben")
    first, second, other = (people.open_session(p.id) for p in (anna, anna, ben))
    people.close_session(first)
    assert people.by_session(first) is None and people.by_session(second) == anna
    people.set_password(anna.id, "hash")
    assert people.by_session(second) is None
    third = people.open_session(anna.id)
    people.close_sessions(anna.id)
    assert people.by_session(third) is None and people.by_session(other) == ben


def test_the_last_admin_is_kept(people: People, admin: Person) -> None:
    for change in (lambda: people.set_active(admin.id, False), lambda: people.set_role(admin.id, "lead")):
        with pytest.raises(Refused, match="last admin"):
            change()
    bea = people.create("Bea", "admin")
    people.set_active(bea.id, False)
    with pytest.raises(Refused, match="last admin"):  # a disabled admin is none
        people.set_role(admin.id, "annotator")
    people.set_active(bea.id, True)
    people.set_role(admin.id, "annotator")
    assert people.person(admin.id) == Person(admin.id, "Ada", "annotator")


def test_names(store: Store, people: People) -> None:
    anna = people.create("  Anna   Maria ", "lead")
    assert anna == Person(Annotator("Anna Maria").id, "Anna Maria", "lead")
    assert store.value("SELECT role FROM annotator") == "lead"
    found = people.find("anna maria")
    assert found is not None and found.person == anna
    for name in ("ANNA maria", "Ａnna Maria"):
        with pytest.raises(Refused, match="taken"):
            people.create(name)
    store.add_annotators([Annotator("Imported")])
    assert people.taken("imported") and not people.taken("Nobody")
    for name in ("", "  ", "x" * 61, "a\x00b", "right\u202eleft", "\ud800"):
        with pytest.raises(UserError, match="visible characters"):
            clean_name(name)


def test_passwords() -> None:
    stored = credentials.hashed("four plain words here")
    assert stored.split("$")[:4] == ["scrypt", "16384", "8", "5"]
    assert credentials.verify("four plain words here", stored)
    assert not credentials.verify("four plain words", stored)
    assert not credentials.verify("anything at all", None)
    assert stored != credentials.hashed("four plain words here")
    for bad, name in (("short", ""), ("x" * 1001, ""), ("Anna Maria Holt", "anna maria holt")):
        with pytest.raises(UserError, match="a password"):
            credentials.checked(bad, name)


def test_an_unknown_name_costs_as_much_as_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, costs = credentials.hashed("four plain words here"), []
    scrypt = credentials._scrypt
    credentials.verify("warm", None)
    monkeypatch.setattr(credentials, "_scrypt", lambda *given: costs.append(given[2:]) or scrypt(*given))
    credentials.verify("wrong words", stored)
    credentials.verify("wrong words", None)
    assert costs == [credentials.COST] * 2


def test_tokens_are_revoked_by_their_owner_only(store: Store, people: People) -> None:
    anna, ben = people.create("Anna"), people.create("Ben")
    token, grant = people.make_token(anna.id, "laptop")
    for owner, id in ((ben.id, grant.id[:16]), (anna.id, grant.id[:15]), (anna.id, "x" * 16)):
        with pytest.raises(Refused, match="no token"):
            people.revoke_token(owner, id)
    assert people.by_token(token) is not None
    people.revoke_token(anna.id, grant.id[:16])
    assert people.by_token(token) is None and People(store).by_token(token) is None


def test_an_invitation_makes_so_many_accounts_and_no_more(
    store: Store, people: People, admin: Person
) -> None:
    links = Invitations(people)
    code, _ = links.invite(admin, "lead", uses=2)
    assert code not in str(store.rows("SELECT * FROM invitation"))
    assert links.accept(code, "Ben", "hash").role == "lead"
    with pytest.raises(Refused, match="taken"):
        links.accept(code, "ben", "hash")
    again = Invitations(People(store))
    assert again.accept(code, "Cleo", "hash").name == "Cleo"
    for used in (again, Invitations(People(store))):
        with pytest.raises(Refused, match="was used"):
            used.accept(code, "Dora", "hash")
    assert again.open() == []


def test_an_invitation_can_fix_a_name_and_a_newcomer_cannot_take_old_votes(
    store: Store, people: People, admin: Person
) -> None:
    store.add_annotators([Annotator("Imported")])
    links = Invitations(people)
    with pytest.raises(Refused, match="taken"):
        links.accept(links.invite(admin)[0], "imported", "hash")
    code, _ = links.invite(admin, name="Imported")
    assert links.accept(code, "somebody else", "hash").id == Annotator("Imported").id


def test_who_may_invite_whom(people: People, admin: Person) -> None:
    links, lead, anna = Invitations(people), people.create("Lea", "lead"), people.create("Anna")
    code, link = links.invite(lead)
    assert [found.role for found in links.open()] == ["annotator"]
    for by, role in ((lead, "lead"), (lead, "admin"), (anna, "annotator")):
        with pytest.raises(Refused, match="this takes the role"):
            links.invite(by, role)
    with pytest.raises(Refused, match="this takes the role admin"):
        links.for_password(lead, anna.id)
    admins, _ = links.invite(admin, "admin")
    with pytest.raises(Refused, match="this takes the role admin"):
        links.revoke(lead, credentials.sha256(admins))
    people.set_role(lead.id, "annotator")  # a link is worth what its maker may give
    assert links.find(code) is None
    people.set_role(lead.id, "lead")
    links.revoke(admin, link.id[:16])
    assert links.find(code) is None
    for wrong in ({"days": 0}, {"days": 366}, {"uses": 0}, {"uses": 1001}, {"name": "Kim", "uses": 2}):
        with pytest.raises(Refused):
            links.invite(admin, **wrong)


def test_a_password_link_sets_a_password_once(people: People, admin: Person) -> None:
    links, anna = Invitations(people), people.create("Anna", "lead", "old")
    session, first = people.open_session(anna.id), links.for_password(admin, anna.id)[0]
    code = links.for_password(admin, anna.id)[0]
    assert links.find(first) is None  # the later one counts
    assert links.accept(code, "ignored", "new") == anna
    assert (people.account(anna.id).password, people.by_session(session)) == ("new", None)
    with pytest.raises(Refused, match="was used"):
        links.accept(code, "ignored", "newer")


def test_the_throttle_counts_per_key_and_lets_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("palate.labeling.throttle.time.monotonic", lambda: clock[0])
    throttle = Throttle(3, 60)
    for _ in range(3):
        assert throttle.wait("a") == 0
        throttle.mark("a")
    assert throttle.wait("a") == 60 and throttle.wait("b") == 0
    clock[0] += 59
    assert throttle.wait("a") == 1
    clock[0] += 2
    assert throttle.wait("a") == 0
    for _ in range(2):
        throttle.mark("a")
    throttle.mark("a")
    throttle.forgive("a")
    assert throttle.wait("a") == 0
    throttle.clear("a")
    for number in range(10_050):
        throttle.mark(str(number))
    assert len(throttle._marks) == 10_000


def test_a_household_is_one_sender() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.7") == network_of("::ffff:192.0.2.7") == "192.0.2.7"
