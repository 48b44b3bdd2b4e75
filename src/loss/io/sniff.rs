//! What a file is that is not a whole safetensors file: said in words, from its first bytes.

use safetensors::SafeTensorError;

/// First bytes, and what they begin.
const SIGNATURES: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "a gzip file (unpack it first)"),
    (b"BZh", "a bzip2 file (unpack it first)"),
    (b"\xfd7zXZ\0", "an xz file (unpack it first)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file (unpack it first)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive (unpack it first)"),
    (b"\x93NUMPY", "a NumPy array (.npy; safetensors.numpy.save_file writes what is read here)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"GGUF", "a GGUF model"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself (`git lfs pull` brings it)",
    ),
];

/// How PyTorch's files come to be safetensors.
const FROM_TORCH: &str = "safetensors.torch.save_file writes what is read here";

/// What the bytes of a file are, of which `error` is said as a safetensors file.
pub(crate) fn what_it_is(bytes: &[u8], error: &SafeTensorError) -> String {
    match guess(bytes) {
        Some(what) => format!("what looks like {what}"),
        None => cut_off(bytes).unwrap_or_else(|| error.to_string()),
    }
}

fn guess(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some("an empty file".into());
    }
    if let Some((_, what)) = SIGNATURES.iter().find(|(begin, _)| bytes.starts_with(begin)) {
        return Some((*what).into());
    }
    let near = &bytes[..bytes.len().min(4096)];
    let has = |part: &[u8]| near.windows(part.len()).any(|window| window == part);
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(match (has(b".npy"), has(b".pkl")) {
            (true, _) => {
                "NumPy arrays (.npz; safetensors.numpy.save_file writes what is read here)".into()
            }
            (_, true) => format!("a PyTorch file (a pickle in a zip archive; {FROM_TORCH})"),
            _ => "a zip archive".into(),
        });
    }
    // Protocols 2 to 5; earlier ones are text, which torch.save never wrote.
    if let [0x80, 2..=5, ..] = bytes {
        return Some(format!("a pickle, as of a PyTorch file ({FROM_TORCH})"));
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some("a tar archive".into());
    }
    text(near)
}

/// A file that is text from its first byte on; the header of a safetensors file has its length first.
fn text(near: &[u8]) -> Option<String> {
    let whole = near.strip_prefix(b"\xef\xbb\xbf").unwrap_or(near).trim_ascii_start();
    let begins = |part: &str| {
        whole.get(..part.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(part.as_bytes()))
    };
    if begins("<!doctype html") || begins("<html") || begins("<head") {
        return Some("an HTML page (a download that went to a web page?)".into());
    }
    let legible = |b: &u8| (b' '..=b'~').contains(b) || b.is_ascii_whitespace() || *b >= 0x80;
    if whole.len() < 8 || !near.iter().all(legible) || near.iter().all(|b| *b >= 0x80) {
        return None;
    }
    Some(match whole[0] {
        b'<' => "XML".into(),
        b'{' | b'[' => "JSON".into(),
        _ => "text".into(),
    })
}

/// A safetensors file of another length than its header says.
fn cut_off(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let header = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let begins = rest.first().is_none_or(|&b| b == b'{');
    let Some(text) = rest.get(..header) else {
        // The format's own limit: what says more is no safetensors file.
        let plausible = begins && header <= 100_000_000;
        return plausible.then(|| {
            let (all, got) = (header + 8, bytes.len());
            format!("a file of {got} bytes, cut off within its header, which ends at byte {all}")
        });
    };
    let data = last_offset(std::str::from_utf8(text).ok()?)?;
    let all = data.checked_add(8 + header)?;
    let got = bytes.len();
    match got.cmp(&all) {
        std::cmp::Ordering::Less => {
            Some(format!("a file of {got} bytes, cut off: by its header it has {all}"))
        }
        std::cmp::Ordering::Greater => {
            Some(format!("a file of {got} bytes, of which its header knows {all}"))
        }
        std::cmp::Ordering::Equal => None,
    }
}

/// Where the last tensor's data ends.
fn last_offset(header: &str) -> Option<usize> {
    let ends = header.split("\"data_offsets\"").skip(1).map(|rest| {
        let list = rest.split_once('[')?.1.split_once(']')?.0;
        list.split_once(',')?.1.trim().parse::<usize>().ok()
    });
    ends.collect::<Option<Vec<usize>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> String {
        let error = safetensors::SafeTensors::deserialize(bytes).expect_err("no safetensors file");
        what_it_is(bytes, &error)
    }

    fn safetensors() -> Vec<u8> {
        let header = br#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat()
    }

    #[test]
    fn other_formats_are_named() {
        for (bytes, name) in [
            (&b""[..], "an empty file"),
            (b"PK\x03\x04\x00\x00archive/data.pkl", "a PyTorch file (a pickle in a zip archive"),
            (b"PK\x03\x04\x00\x00input.npy\x93NUMPY", "NumPy arrays (.npz"),
            (b"PK\x03\x04\x00\x00readme.txt", "a zip archive"),
            (b"\x80\x02}q\x00X\x05\x00\x00\x00inputq\x01.", "a pickle"),
            (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.", "a pickle"),
            (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'", "a NumPy array"),
            (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "a gzip file"),
            (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
            (b"\xef\xbb\xbf\n <HTML lang=en>", "an HTML page"),
            (b"<?xml version=\"1.0\"?><Error/>", "XML"),
            (b"{\"input\": [[0.1, 0.2]]}", "JSON"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
            (b"0.1,0.2,0.3\n0.4,0.5,0.6\n", "text"),
        ] {
            let said = said(bytes);
            assert!(said.starts_with(&format!("what looks like {name}")), "{said}");
        }
    }

    #[test]
    fn a_file_of_another_length_than_its_header_says_is_told_in_bytes() {
        let whole = safetensors();
        assert!(said(&whole[..whole.len() - 1]).contains("cut off: by its header it has 70"));
        assert!(said(&whole[..20]).contains("cut off within its header, which ends at byte 62"));
        assert!(said(&[&whole[..], &[0]].concat()).contains("of which its header knows 70"));
    }

    #[test]
    fn what_nobody_knows_is_told_as_the_format_has_it() {
        for bytes in [&[0xff; 64][..], &[0; 64], b"\x01"] {
            assert!(!said(bytes).contains("looks like"), "{}", said(bytes));
        }
    }
}
