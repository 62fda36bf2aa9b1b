// SPDX-License-Identifier: GPL-2.0-or-later

//! Directories as the driver leaves them, and what can be wrong with them. Needs a file system with
//! attributes of users; `scripts/fsck-test` has caches that the driver has made.

use std::cell::RefCell;
use std::os::unix::fs::FileExt;

use rustix::fs::{lgetxattr, lsetxattr, XattrFlags};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

const AUX: &[u8] = b"auxversion-1";

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

fn state(size: u64, content: u8) -> Vec<u8> {
    [&size.to_be_bytes()[..], &[0; 8], &[1, content], AUX].concat()
}

fn list(kind: u8, payload: &[u8], binding: &[u8]) -> Vec<u8> {
    let check = sha(&[&sha(&[binding]), &[kind], payload]);
    [&[2], &check[..8], &[kind], payload].concat()
}

fn record(token: u64, offset: u64, runs: &[u8]) -> Vec<u8> {
    let check = sha(&[&token.to_le_bytes(), &offset.to_le_bytes(), runs]);
    let len = u32::try_from(runs.len()).unwrap().to_le_bytes();
    [&check[..8], &len, &[0; 4], runs].concat()
}

/// `None` if the file system has no attributes of users.
fn cache() -> Option<TempDir> {
    let dir = tempfile::tempdir().unwrap();
    for name in ["cache", "graveyard", "lists"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let made = lsetxattr(dir.path(), "user.test", b"x", XattrFlags::empty());
    if made.is_err() {
        eprintln!(
            "not tested: no attributes of users in {}",
            dir.path().display()
        );
    }
    made.ok().map(|()| dir)
}

fn set(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// A file of 8 blocks, of which the first 4 are data.
fn put(dir: &Path, name: &str, state: &[u8], list: Option<&[u8]>) -> PathBuf {
    let volume = dir.join("cache/Iv");
    let fan = volume.join("@0a");
    fs::create_dir_all(&fan).unwrap();
    set(&volume, "user.CacheFiles.cache", &[0; 4]);
    let path = fan.join(name);
    let file = fs::File::create(&path).unwrap();
    file.set_len(8 * 4096).unwrap();
    file.write_all_at(&[1; 4 * 4096], 0).unwrap();
    set(&path, "user.CacheFiles.cache", state);
    if let Some(list) = list {
        set(&path, "user.CacheFiles.present", list);
    }
    path
}

/// The exit status and the JSON object.
fn fsck(dir: &Path, options: &[&str]) -> (u8, Value) {
    let args = ["fsck", "--json"].iter().chain(options);
    let args = args.map(|arg| arg.as_ref()).chain([dir.as_os_str()]);
    let printed = RefCell::new(String::new());
    let status = run(&command().get_matches_from(args), |text| {
        printed.borrow_mut().push_str(text);
    });
    let text = printed.into_inner();
    (status.unwrap(), serde_json::from_str(&text).unwrap())
}

/// The state of an object, and the bytes that are present of it.
fn object(found: &Value, name: &str) -> Option<(String, u64)> {
    let volumes = found["volumes"].as_array()?.iter();
    let mut objects = volumes.flat_map(|volume| volume["objects"].as_array().unwrap());
    let object = objects.find(|object| object["name"] == name)?;
    Some((
        object["state"].as_str()?.into(),
        object["present"].as_u64()?,
    ))
}

const SIZE: u64 = 8 * 4096 - 100;

/// Something of each kind that is of use.
fn good(dir: &Path) {
    // Blocks 1 and 2, and 6 and 7, of which the file system has nothing.
    let runs = list(0, &[1, 2, 3, 2], AUX);
    put(dir, "Dpartial", &state(SIZE, 3), Some(&runs));
    let file = [record(0x1234, 0, &[0, 1]), record(0x1234, 18, &[2, 1])].concat();
    fs::write(dir.join("lists/0000000000001234"), file).unwrap();
    let token = list(1, &0x1234u64.to_le_bytes(), AUX);
    put(dir, "Elisted", &state(SIZE, 3), Some(&token));
    put(dir, "Sunlisted", &state(SIZE, 0), None);
    put(dir, "Dshort", &state(SIZE, 2), None);
    let path = put(dir, "Tcomplete", &state(SIZE, 2), None);
    fs::write(&path, vec![1; 8 * 4096]).unwrap();
    set(&path, "user.CacheFiles.cache", &state(SIZE, 2));
}

fn all_good(found: &Value) {
    for (name, state, blocks) in [
        ("Dpartial", "partial", 2),
        ("Elisted", "partial", 2),
        ("Sunlisted", "unlisted", 4),
        ("Dshort", "partial", 4),
    ] {
        assert_eq!(
            object(found, name),
            Some((state.into(), blocks * 4096)),
            "{name}"
        );
    }
    let complete = object(found, "Tcomplete");
    assert_eq!(complete, Some(("complete".into(), SIZE)));
}

#[test]
fn what_is_good_stays() {
    let Some(dir) = cache() else { return };
    good(dir.path());
    for options in [&[][..], &["--remove"], &[]] {
        let (status, found) = fsck(dir.path(), options);
        assert_eq!((status, &found["problems"]), (0, &0.into()), "{found}");
        all_good(&found);
        assert_eq!(found["totals"]["objects"], 5);
        assert_eq!(found["totals"]["present"], 12 * 4096 + SIZE);
    }
}

#[test]
fn what_is_of_no_use_is_removed() {
    let Some(dir) = cache() else { return };
    let dir = dir.path();
    good(dir);
    let missing = list(1, &1u64.to_le_bytes(), AUX);
    let nonsense = list(1, &2u64.to_le_bytes(), AUX);
    let other = list(1, &3u64.to_le_bytes(), b"another");
    let mut torn = list(0, &[0, 4], AUX);
    torn[11] = 3;
    for (name, state, list) in [
        ("Ddirty", state(SIZE, 4), None),
        ("Dnone", state(SIZE, 3), None),
        ("Dtorn", state(SIZE, 3), Some(torn)),
        ("Dother", state(SIZE, 3), Some(other)),
        ("Dmissing", state(SIZE, 3), Some(missing)),
        ("Dnonsense", state(SIZE, 3), Some(nonsense)),
        ("Dstrange", state(SIZE, 77), None),
        ("Dempty", vec![], None),
    ] {
        put(dir, name, &state, list.as_deref());
    }
    fs::write(dir.join("lists/0000000000000002"), vec![0; 100]).unwrap();
    fs::write(dir.join("lists/0000000000000003"), record(3, 0, &[0, 4])).unwrap();
    fs::write(dir.join("cache/Iv/@0a/temporary"), b"x").unwrap();
    fs::create_dir_all(dir.join("graveyard/0011223344556677/@00")).unwrap();
    fs::create_dir_all(dir.join("cache/Istale/@00")).unwrap();
    fs::write(dir.join("cache/Istale/@00/Dx"), b"x").unwrap();
    let (status, found) = fsck(dir, &[]);
    assert_eq!(status, REMAIN);
    all_good(&found);
    for (name, state) in [
        ("Ddirty", "dirty"),
        ("Dnone", "no-list"),
        ("Dtorn", "no-list"),
        ("Dother", "no-list"),
        ("Dmissing", "no-list"),
        ("Dnonsense", "no-list"),
        ("Dstrange", "damaged"),
        ("Dempty", "damaged"),
        ("Dx", "no-volume"),
    ] {
        assert_eq!(object(&found, name), Some((state.into(), 0)), "{name}");
    }
    // Two lists, one file, one directory.
    assert_eq!(found["totals"]["orphans"], 4, "{found}");
    let (status, found) = fsck(dir, &["--remove"]);
    assert_eq!(
        (status, &found["problems"]),
        (REMOVED, &0.into()),
        "{found}"
    );
    assert_eq!(found["removed"].as_array().unwrap().len(), 8 + 1 + 4);
    all_good(&found);
    assert_eq!(found["totals"]["objects"], 5);
    assert_eq!(fsck(dir, &[]).0, 0);
    assert!(dir.join("lists/0000000000001234").exists());
}

#[test]
fn the_damaged_end_of_a_list_is_cut_off() {
    let Some(dir) = cache() else { return };
    good(dir.path());
    let path = dir.path().join("lists/0000000000001234");
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (status, found) = fsck(dir.path(), &[]);
    assert_eq!(status, REMAIN);
    assert_eq!(object(&found, "Elisted"), Some(("partial".into(), 4096)));
    assert_eq!(fsck(dir.path(), &["--remove"]).0, REMOVED);
    assert_eq!(fs::read(&path).unwrap(), whole[..18]);
    assert_eq!(fsck(dir.path(), &[]).0, 0);
}

#[test]
fn what_does_not_belong_there_stays() {
    let Some(dir) = cache() else { return };
    good(dir.path());
    fs::write(dir.path().join("cache/notes"), b"x").unwrap();
    fs::create_dir(dir.path().join("cache/Iv/@0a/Ddir")).unwrap();
    std::os::unix::fs::symlink("/", dir.path().join("cache/Iv/@0a/Dlink")).unwrap();
    fs::write(dir.path().join("lists/1"), b"x").unwrap();
    let (status, found) = fsck(dir.path(), &["--remove"]);
    assert_eq!((status, &found["problems"]), (REMAIN, &4.into()), "{found}");
    assert_eq!(found["foreign"].as_array().unwrap().len(), 4);
    all_good(&found);
}

/// Each byte of each attribute and list file.
#[test]
fn damage_is_never_good() {
    let Some(dir) = cache() else { return };
    let dir = dir.path();
    good(dir);
    let fan = dir.join("cache/Iv/@0a");
    for name in ["Dpartial", "Elisted"] {
        let path = fan.join(name);
        for attribute in ["user.CacheFiles.present", "user.CacheFiles.cache"] {
            let mut value = vec![0; 4096];
            let len = lgetxattr(&path, attribute, &mut value[..]).unwrap();
            value.truncate(len);
            // The header of the main attribute has no check.
            let first = if attribute.ends_with("cache") { 18 } else { 0 };
            for at in first..len {
                for bit in [1, 0x10, 0x80] {
                    let mut bad = value.clone();
                    bad[at] ^= bit;
                    set(&path, attribute, &bad);
                    let (status, found) = fsck(dir, &[]);
                    assert_eq!(status, REMAIN);
                    assert_eq!(object(&found, name), Some(("no-list".into(), 0)), "{at}");
                }
            }
            set(&path, attribute, &value);
        }
    }
    let path = dir.join("lists/0000000000001234");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let (status, found) = fsck(dir, &[]);
        assert_eq!(status, REMAIN);
        let (state, present) = object(&found, "Elisted").unwrap();
        assert_eq!(state, if at < 18 { "no-list" } else { "partial" });
        assert!(present <= 4096);
    }
    fs::write(&path, &whole).unwrap();
    all_good(&fsck(dir, &[]).1);
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(check_directory(dir.path()).unwrap_err().contains("is not"));
    fs::create_dir(dir.path().join("cache")).unwrap();
    fs::create_dir(dir.path().join("graveyard")).unwrap();
    check_directory(dir.path()).unwrap();
    assert_eq!(
        fs::read_dir(dir.path().join("graveyard")).unwrap().count(),
        0
    );
}

#[test]
fn the_text_says_what_there_is() {
    let Some(dir) = cache() else { return };
    good(dir.path());
    put(dir.path(), "Ddirty", &state(SIZE, 4), None);
    let path = dir.path().as_os_str();
    let printed = RefCell::new(String::new());
    let args = command().get_matches_from(["fsck".as_ref(), path]);
    assert_eq!(
        run(&args, |text| printed.borrow_mut().push_str(text)),
        Ok(REMAIN)
    );
    let text = printed.into_inner();
    for want in [
        "Iv\n",
        "  Ddirty: dirty, nothing\n",
        "  Dpartial: partial, 8.0 KiB of 31.9 KiB (25 %)\n",
        "  Dshort: partial, 16.0 KiB of 31.9 KiB (50 %); should be complete\n",
        "  Tcomplete: complete, 31.9 KiB\n",
        ": 1 volumes, 6 objects: 1 complete, 3 partial, 1 unlisted, 1 stale; ",
    ] {
        assert!(text.contains(want), "{want} is not in\n{text}");
    }
}
