//! A zip as a source, above all that of a `cilium sysdump`: read in memory, never unpacked.
//!
//! Somebody else packed it, so everything about it is bounded: how many files, how many bytes they
//! become, and where their names lead.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use nodeway_core::source::Text;
use zip::ZipArchive;
use zip::result::ZipError;

use super::{LoadError, is_manifest, shown, sysdump};

/// Sysdumps of the largest clusters have some thousand files, a few for each node.
const MAX_FILES: usize = 100_000;

/// What all files with objects may become; five thousand pods of a dump are about 50 MiB.
const MAX_BYTES: u64 = 256 << 20;

/// Whether a file is read as a zip.
pub(super) fn is_zip(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("zip"))
}

/// The texts of a zip's manifests; of a sysdump's those with objects.
pub(super) fn read(path: &Path) -> Result<Vec<Text>, LoadError> {
    read_within(path, MAX_BYTES)
}

fn read_within(path: &Path, most: u64) -> Result<Vec<Text>, LoadError> {
    let file = File::open(path).map_err(|error| LoadError::of_io(path, &error))?;
    let mut archive =
        ZipArchive::new(BufReader::new(file)).map_err(|error| refused(path, &error))?;
    if archive.len() > MAX_FILES {
        let reason = format!(
            "it holds {} files, at most {MAX_FILES} are read",
            archive.len()
        );
        return Err(LoadError::io(path, &reason, UNPACK));
    }
    let mut found = Vec::new();
    for index in 0..archive.len() {
        let entry = archive
            .by_index_raw(index)
            .map_err(|error| refused(path, &error))?;
        let Some(name) = entry.enclosed_name() else {
            let reason = format!(
                "the name `{}` in it leads out of it",
                String::from_utf8_lossy(entry.name_raw()).escape_debug()
            );
            return Err(LoadError::io(path, &reason, "do not trust this archive"));
        };
        if !entry.is_dir() && is_manifest(&name) {
            found.push((name, index));
        }
    }
    // The order in a zip is the packer's; a run must not depend on it.
    found.sort();
    let wanted = sysdump::only_objects(found.iter().map(|(name, _)| name.clone()).collect());
    found.retain(|(name, _)| wanted.binary_search(name).is_ok());
    if found.is_empty() {
        return Err(LoadError::io(
            path,
            "no file in it ends in .yaml, .yml or .json",
            "name a zip of `cilium sysdump`, or of manifests",
        ));
    }
    let mut left = most;
    found
        .into_iter()
        .map(|(name, index)| unpack(path, &mut archive, &name, index, &mut left))
        .collect()
}

fn unpack(
    path: &Path,
    archive: &mut ZipArchive<BufReader<File>>,
    name: &PathBuf,
    index: usize,
    left: &mut u64,
) -> Result<Text, LoadError> {
    let at = path.join(name);
    let entry = archive
        .by_index(index)
        .map_err(|error| refused(&at, &error))?;
    let mut bytes = Vec::new();
    // What the zip says of a size is not believed; one byte more than allowed is enough to know.
    entry
        .take(left.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| {
            let reason = format!("it cannot be unpacked: {error}");
            LoadError::io(&at, &reason, "fetch the archive again: it is damaged")
        })?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let Some(rest) = left.checked_sub(length) else {
        let reason = "the files with objects in it become too large to read";
        return Err(LoadError::io(path, reason, UNPACK));
    };
    *left = rest;
    let content = String::from_utf8(bytes).map_err(|_| {
        LoadError::io(
            &at,
            "it is no UTF-8 text",
            "take the file out of the archive",
        )
    })?;
    Ok(Text::new(shown(&at), content))
}

const UNPACK: &str = "unpack it, and name the folder or the files that matter";

fn refused(path: &Path, error: &ZipError) -> LoadError {
    match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            LoadError::of_io(path, error)
        }
        ZipError::UnsupportedArchive(_)
        | ZipError::CompressionMethodNotSupported(_)
        | ZipError::InvalidPassword => {
            let reason = format!("it is packed in a way that is not read: {error}");
            LoadError::io(path, &reason, UNPACK)
        }
        other => {
            let reason = format!("it is no whole zip: {other}");
            LoadError::io(path, &reason, "fetch it again: it is cut off or damaged")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use rstest::rstest;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    const SERVICE: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}\n";

    fn packed(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, content) in files {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump.zip");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn names(files: &[(&str, &str)]) -> Vec<String> {
        let (folder, path) = written(&packed(files));
        let texts = read(&path).unwrap();
        let at = format!("{}/", shown(folder.path()));
        texts
            .iter()
            .map(|text| text.name.replace(&at, ""))
            .collect()
    }

    #[test]
    fn of_a_sysdump_only_files_with_objects_are_read_in_the_order_of_names() {
        let files = [
            (
                "cilium-sysdump-20260301-101500/k8s-services-20260301-101500.yaml",
                SERVICE,
            ),
            (
                "cilium-sysdump-20260301-101500/k8s-pods-20260301-101500.yaml",
                "",
            ),
            (
                "cilium-sysdump-20260301-101500/k8s-pods-20260301-101500.txt",
                "NAME",
            ),
            (
                "cilium-sysdump-20260301-101500/hubble-flows-x-20260301-101500.json",
                "{}{}",
            ),
            (
                "cilium-sysdump-20260301-101500/cilium-helm-values-20260301-101500.yaml",
                "a: 1",
            ),
            (
                "cilium-sysdump-20260301-101500/cilium-bugtool-x/cmd/a.json",
                "{",
            ),
        ];
        assert_eq!(
            names(&files),
            [
                "dump.zip/cilium-sysdump-20260301-101500/k8s-pods-20260301-101500.yaml",
                "dump.zip/cilium-sysdump-20260301-101500/k8s-services-20260301-101500.yaml",
            ]
        );
    }

    #[test]
    fn a_zip_of_manifests_is_read_like_their_folder() {
        let files = [("b.yml", SERVICE), ("a/a.json", "{}"), ("read.me", "")];
        assert_eq!(names(&files), ["dump.zip/a/a.json", "dump.zip/b.yml"]);
    }

    #[rstest]
    #[case::up("../k8s-pods-20260301-101500.yaml")]
    #[case::deep("a/../../k8s-pods-20260301-101500.yaml")]
    fn a_name_that_leads_out_is_refused(#[case] name: &str) {
        let (_folder, path) = written(&packed(&[(name, SERVICE)]));
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("leads out of it"), "{error}");
    }

    #[test]
    fn what_would_grow_beyond_all_bounds_is_refused_before_it_has() {
        let bomb = " ".repeat(3 << 20);
        let bytes = packed(&[("a.yaml", &bomb), ("b.yaml", SERVICE)]);
        assert!(bytes.len() < 20_000);
        let (_folder, path) = written(&bytes);
        let error = read_within(&path, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("too large to read"), "{error}");
        assert!(error.contains("unpack it"), "{error}");
    }

    #[rstest]
    #[case::empty(b"".to_vec(), "it is no whole zip")]
    #[case::no_zip(b"apiVersion: v1\n".to_vec(), "it is no whole zip")]
    #[case::cut_off(packed(&[("a.yaml", SERVICE)])[..60].to_vec(), "it is no whole zip")]
    #[case::no_manifest(packed(&[("a.txt", "")]), "no file in it ends in")]
    fn what_is_no_zip_is_told_with_what_to_do(#[case] bytes: Vec<u8>, #[case] want: &str) {
        let (_folder, path) = written(&bytes);
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains(want) && error.contains("dump.zip"),
            "{error}"
        );
    }

    #[test]
    fn bytes_that_were_changed_are_noticed() {
        let mut bytes = packed(&[("a.yaml", &SERVICE.repeat(50))]);
        let at = bytes.iter().rposition(|byte| *byte == b'P').unwrap() / 2;
        bytes[at] ^= 0xff;
        let (_folder, path) = written(&bytes);
        assert!(read(&path).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_mangled_zip_makes_the_reader_panic(at in 0_usize..400, put in any::<[u8; 4]>(), cut in 0_usize..400) {
            let mut bytes = packed(&[("a.yaml", SERVICE), ("k8s-pods-20260301-101500.yaml", SERVICE)]);
            for (offset, byte) in put.iter().enumerate() {
                let place = (at + offset) % bytes.len();
                bytes[place] = *byte;
            }
            bytes.truncate(bytes.len() - cut % 40);
            let (_folder, path) = written(&bytes);
            let _ = read_within(&path, 1 << 20);
        }
    }
}
