"""Secrets at rest: sealed for one tenant and purpose, under keys that can be replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hubscope.access.vault import FILE, OVERHEAD, Vault, vault_of
from hubscope.errors import CannotUnseal, InvalidSetting, NoEncryptionKey
from hubscope.settings import Settings

OLD, NEW = b"the key of last year, at least 32 characters", b"the key of this year, at least 32 characters"
TEXT = st.text(max_size=20)


@given(plain=st.binary(max_size=200), tenant=TEXT, purpose=TEXT)
def test_what_was_sealed_is_opened(plain: bytes, tenant: str, purpose: str) -> None:
    vault = Vault([NEW])
    sealed = vault.seal(plain, tenant=tenant, purpose=purpose)
    assert len(sealed) == len(plain) + OVERHEAD
    assert vault.open(sealed, tenant=tenant, purpose=purpose) == plain


@given(one=st.tuples(TEXT, TEXT), other=st.tuples(TEXT, TEXT))
def test_what_was_sealed_for_one_tenant_and_purpose_is_not_opened_for_another(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assume(one != other)
    vault = Vault([NEW])
    sealed = vault.seal(b"secret", tenant=one[0], purpose=one[1])
    with pytest.raises(CannotUnseal):
        vault.open(sealed, tenant=other[0], purpose=other[1])


def test_tenant_and_purpose_are_not_run_together() -> None:
    vault = Vault([NEW])
    with pytest.raises(CannotUnseal):
        vault.open(vault.seal(b"secret", tenant="ab", purpose="c"), tenant="a", purpose="bc")


@given(place=st.integers(0, OVERHEAD + 5), flip=st.integers(1, 255))
def test_a_changed_byte_anywhere_is_noticed(place: int, flip: int) -> None:
    vault = Vault([NEW])
    sealed = bytearray(vault.seal(b"secret", tenant="t", purpose="p"))
    sealed[place] ^= flip
    with pytest.raises(CannotUnseal):
        vault.open(bytes(sealed), tenant="t", purpose="p")


@given(junk=st.binary(max_size=OVERHEAD + 10))
def test_junk_is_refused_with_a_reason(junk: bytes) -> None:
    with pytest.raises(CannotUnseal, match="the password of a server"):
        Vault([NEW]).open(junk, tenant="t", purpose="password of a server")


def test_the_same_text_is_sealed_differently_each_time_and_never_stands_in_it() -> None:
    vault = Vault([NEW])
    sealed = {vault.seal(b"hunter2hunter2", tenant="t", purpose="p") for _ in range(20)}
    assert len(sealed) == 20
    assert not any(b"hunter2" in one for one in sealed)


def test_a_key_is_replaced_by_putting_a_new_one_in_front() -> None:
    before, during, after = Vault([OLD]), Vault([NEW, OLD]), Vault([NEW])
    sealed = before.seal(b"secret", tenant="t", purpose="p")
    assert during.open(sealed, tenant="t", purpose="p") == b"secret"
    assert not during.is_current(sealed)

    again = during.seal(b"secret", tenant="t", purpose="p")
    assert during.is_current(again)
    assert after.open(again, tenant="t", purpose="p") == b"secret"
    with pytest.raises(CannotUnseal, match=before.key_id) as refused:
        after.open(sealed, tenant="t", purpose="p")
    assert after.key_id in refused.value.detail


def test_a_vault_does_not_print_its_keys() -> None:
    vault = Vault([NEW])
    assert "key of this year" not in f"{vault!r} {vars(vault)!r}"


def test_a_store_of_ones_own_needs_a_key_for_secrets(directory: Path) -> None:
    with pytest.raises(NoEncryptionKey, match="HUBSCOPE_ENCRYPTION_KEY"):
        vault_of(Settings.load(database_url="postgresql://u@h/d", data_dir=directory), make=True)
    assert list(directory.iterdir()) == []
    vault = vault_of(Settings.load(database_url="postgresql://u@h/d", encryption_key="n" * 32))
    assert vault.open(vault.seal(b"secret", tenant="t", purpose="p"), tenant="t", purpose="p") == b"secret"


def test_the_embedded_store_has_a_key_made_with_the_first_secret(directory: Path) -> None:
    settings = Settings.load(data_dir=directory)
    with pytest.raises(NoEncryptionKey, match="is gone"):
        vault_of(settings)
    sealed = vault_of(settings, make=True).seal(b"secret", tenant="t", purpose="p")
    assert (directory / FILE).stat().st_mode & 0o777 == 0o600
    assert vault_of(settings).open(sealed, tenant="t", purpose="p") == b"secret"


def test_keys_may_stand_in_a_file(directory: Path) -> None:
    path = directory / "keys"
    path.write_text("n" * 32 + "\n" + "o" * 40 + "\n")
    vault = vault_of(Settings.load(encryption_key_file=path))
    assert vault.key_id == Vault([b"n" * 32]).key_id
    sealed = Vault([b"o" * 40]).seal(b"secret", tenant="t", purpose="p")
    assert vault.open(sealed, tenant="t", purpose="p") == b"secret"


@pytest.mark.parametrize("text", ["short", "n" * 32 + ",short", ","])
def test_a_key_that_is_too_short_is_one_clear_error(text: str) -> None:
    with pytest.raises(InvalidSetting, match="at least 32 characters"):
        vault_of(Settings.load(encryption_key=text))


@pytest.mark.parametrize(("mode", "content", "said"), [(0o644, "n" * 64, "chmod 600"), (0o600, "", "damaged")])
def test_a_key_file_that_will_not_do_is_one_clear_error(directory: Path, mode: int, content: str, said: str) -> None:
    path = directory / FILE
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(InvalidSetting, match=said):
        vault_of(Settings.load(data_dir=directory))
