//! The order of classes by frequency, where the caller numbers them in another.

use crate::base::error::{Error, Result};

/// Which class of the caller's has which place in the order of falling frequency.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ClassOrder {
    /// Of a class its place.
    places: Vec<u32>,
    /// Of a place its class.
    classes: Vec<u32>,
}

impl ClassOrder {
    /// Sorts classes by falling count; of equal counts the lower class comes first.
    ///
    /// # Errors
    /// 2³² classes or more.
    pub fn from_counts(counts: &[u64]) -> Result<ClassOrder> {
        let number = u32::try_from(counts.len()).map_err(|_| too_many(counts.len()))?;
        let mut classes: Vec<u32> = (0..number).collect();
        classes.sort_by_key(|&class| std::cmp::Reverse(counts[class as usize]));
        let mut places = vec![0; classes.len()];
        for (place, &class) in (0..).zip(&classes) {
            places[class as usize] = place;
        }
        Ok(ClassOrder { places, classes })
    }

    /// Of each class its place.
    #[cfg(gpu)]
    pub(crate) fn places(&self) -> &[u32] {
        &self.places
    }

    /// Of each place its class.
    #[cfg(gpu)]
    pub(crate) fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// Takes the order as it is: of each place its class.
    ///
    /// # Errors
    /// `classes` does not hold each number below its length once.
    pub fn from_classes(classes: Vec<u32>) -> Result<ClassOrder> {
        const FREE: u32 = u32::MAX;
        let number = u32::try_from(classes.len()).map_err(|_| too_many(classes.len()))?;
        let mut places = vec![FREE; classes.len()];
        for (place, &class) in (0..number).zip(&classes) {
            match places.get_mut(class as usize) {
                Some(slot) if *slot == FREE => *slot = place,
                _ => {
                    return Err(Error::Value {
                        argument: "classes",
                        expected: format!("each number below {number} once"),
                        got: format!("{class} at place {place}"),
                    });
                }
            }
        }
        Ok(ClassOrder { places, classes })
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The place of a class, if there is such a class.
    pub fn place(&self, class: usize) -> Option<usize> {
        self.places.get(class).map(|&place| place as usize)
    }

    /// The class at a place, if there is such a place.
    pub fn class(&self, place: usize) -> Option<usize> {
        self.classes.get(place).map(|&class| class as usize)
    }
}

fn too_many(classes: usize) -> Error {
    let expected = "fewer than 2^32 classes".into();
    Error::Value { argument: "classes", expected, got: classes.to_string() }
}
