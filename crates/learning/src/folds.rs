//! Random folds that do not split groups.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::{Error, require_same};

/// A split of rows into folds of about equal size that does not split groups.
#[derive(Debug)]
pub(crate) struct Folds {
    /// The rows of each fold, in ascending order.
    held: Vec<Vec<usize>>,
    /// The fold of each row.
    of: Vec<usize>,
    /// Number of distinct groups.
    pub(crate) groups: usize,
}

impl Folds {
    /// Shuffles the groups and puts each one into the fold with the fewest rows so far.
    pub(crate) fn new(
        rows: usize,
        groups: Option<&[u64]>,
        folds: usize,
        seed: u64,
    ) -> Result<Self, Error> {
        if folds < 2 {
            return Err(Error::Setting { name: "folds", value: folds as f64, must: "at least 2" });
        }
        let members = members(rows, groups)?;
        if members.len() < folds {
            return Err(Error::TooFew { groups: members.len(), folds });
        }
        let mut held = vec![Vec::new(); folds];
        for group in shuffled(members.len(), seed) {
            // The first of the smallest folds.
            let smallest = (0..folds).min_by_key(|&f| (held[f].len(), f)).unwrap_or(0);
            held[smallest].extend_from_slice(&members[group]);
        }
        let mut of = vec![0; rows];
        for (fold, rows) in held.iter_mut().enumerate() {
            rows.sort_unstable();
            rows.iter().for_each(|&row| of[row] = fold);
        }
        Ok(Self { held, of, groups: members.len() })
    }

    pub(crate) fn count(&self) -> usize {
        self.held.len()
    }

    /// The rows of one fold.
    pub(crate) fn held(&self, fold: usize) -> &[usize] {
        &self.held[fold]
    }

    /// The rows of all other folds, in ascending order; all rows for `None`.
    pub(crate) fn training(&self, without: Option<usize>) -> Vec<usize> {
        (0..self.of.len()).filter(|&row| Some(self.of[row]) != without).collect()
    }
}

/// The rows of each group, in the order of the groups' first rows. Without groups, each row is its own group.
pub(crate) fn members(rows: usize, groups: Option<&[u64]>) -> Result<Vec<Vec<usize>>, Error> {
    let Some(groups) = groups else {
        return Ok((0..rows).map(|row| vec![row]).collect());
    };
    require_same("rows", "groups", groups.len(), "the data", rows)?;
    let mut index = HashMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (row, group) in groups.iter().enumerate() {
        let at = *index.entry(group).or_insert(members.len());
        if at == members.len() {
            members.push(Vec::new());
        }
        members[at].push(row);
    }
    Ok(members)
}

/// Fisher-Yates shuffle of `0..n`. It is implemented here so that the result depends on ChaCha8 only and not on the
/// version of `rand`.
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let j = (u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64;
        order.swap(i, j as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_whole_and_folds_stay_even() {
        let groups: Vec<u64> = (0..1000).map(|i| i * i % 137).collect();
        for seed in 0..20 {
            let folds = Folds::new(1000, Some(&groups), 5, seed).unwrap();
            let mut seen = vec![None; 137];
            for fold in 0..5 {
                assert!((150..=250).contains(&folds.held(fold).len()));
                for &row in folds.held(fold) {
                    let before = seen[groups[row] as usize].replace(fold);
                    assert!(before.is_none() || before == Some(fold));
                }
                let training = folds.training(Some(fold));
                assert_eq!(training.len() + folds.held(fold).len(), 1000);
                assert!(training.iter().all(|row| !folds.held(fold).contains(row)));
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let held = |seed| Folds::new(30, None, 3, seed).unwrap().held;
        assert_eq!(held(1), held(1));
        assert_ne!(held(1), held(2));
        assert!(held(1).iter().all(|rows| rows.len() == 10));
    }

    #[test]
    fn too_few() {
        let message =
            |groups: Option<&[u64]>, folds| Folds::new(4, groups, folds, 0).unwrap_err().to_string();
        assert!(message(Some(&[1, 1, 2, 2]), 3).starts_with("2 groups of rows cannot be split into 3"));
        assert_eq!(message(None, 1), "folds is 1: it must be at least 2");
        assert_eq!(message(Some(&[1]), 2), "groups has 1 rows but the data has 4");
    }
}
