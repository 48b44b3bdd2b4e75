//! One row: how it is cut, the loops that sum it, and those that turn it into a gradient.

pub(crate) mod blocks;
pub(crate) mod cuts;
pub(crate) mod entropy;
pub(crate) mod gradient;
pub(crate) mod hole;
pub(crate) mod logit;
pub(crate) mod narrow;
pub(crate) mod partial;
pub(crate) mod places;
pub(crate) mod ranks;
pub(crate) mod record;
pub(crate) mod room;
pub(crate) mod soft_row;
pub(crate) mod soft_target;
pub(crate) mod softmax;
pub(crate) mod state;
pub(crate) mod tile;
pub(crate) mod top;
pub(crate) mod work;
