//! Near misses: what a name that is not there was meant to be.

/// The name that is closest to `wanted`, if any is close.
pub(super) fn closest<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |name: &str| {
        let kept = name.chars().filter(|c| c.is_alphanumeric());
        kept.flat_map(char::to_lowercase).collect::<Vec<char>>()
    };
    let wanted = plain(wanted);
    let most = (wanted.len() / 3).min(2);
    let close = names.into_iter().map(|name| (distance(&wanted, &plain(name)), name));
    close.filter(|&(distance, _)| distance <= most).min_by_key(|&(d, _)| d).map(|(_, name)| name)
}

/// Letters to insert, drop, replace or swap with a neighbour, at least.
fn distance(a: &[char], b: &[char]) -> usize {
    let (mut older, mut old) = (Vec::new(), (0..=b.len()).collect::<Vec<usize>>());
    for i in 0..a.len() {
        let mut new = vec![i + 1];
        for j in 0..b.len() {
            let replaced = old[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(old[j + 1] + 1).min(new[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                let before: &Vec<usize> = &older;
                least = least.min(before[j - 1] + 1);
            }
            new.push(least);
        }
        older = std::mem::replace(&mut old, new);
    }
    old[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_is_found() {
        let names = ["input", "target", "head.weight", "step3.grad_output"];
        for (wanted, found) in [
            ("inputs", Some("input")),
            ("tragte", Some("target")),
            ("Target", Some("target")),
            ("head_weight", Some("head.weight")),
            ("step2.grad_output", Some("step3.grad_output")),
            ("weight", None),
            ("x", None),
        ] {
            assert_eq!(closest(wanted, names), found, "{wanted}");
        }
        assert_eq!(distance(&['a', 'b'], &['b', 'a']), 1);
        assert_eq!(distance(&[], &['b', 'a']), 2);
    }
}
