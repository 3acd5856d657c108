//! Parses a scene and computes its pixels: spheres over a checker floor, one light, soft shadows,
//! repeated reflections. Invariant: the same scene gives the same picture, bit for bit.

use std::str::FromStr;

use crate::vector::Vector;

/// How many reflections a ray is followed through.
const BOUNCES_MAX: u32 = 5;
/// How far from a surface a reflected ray starts, so that it doesn't hit the same surface again.
const SKIN: f32 = 1e-3;
const LIGHT_RADIUS: f32 = 0.9;

pub(crate) struct Sphere {
    centre: Vector,
    radius: f32,
    colour: Vector,
    mirror: f32,
}

pub(crate) struct Scene {
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) spheres: Vec<Sphere>,
    samples: u16,
    camera: Vector,
    target: Vector,
    light: Vector,
}

struct Hit {
    distance: f32,
    normal: Vector,
    colour: Vector,
    mirror: f32,
}

impl FromStr for Scene {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut scene = Self {
            width: 640,
            height: 400,
            spheres: Vec::new(),
            samples: 4,
            camera: Vector(0.0, 1.5, -6.0),
            target: Vector(0.0, 0.5, 0.0),
            light: Vector(-4.0, 8.0, -4.0),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            scene.read(line).map_err(|problem| format!("scene, line {number}: {problem}"))?;
        }
        Ok(scene)
    }
}

impl Scene {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { return Ok(()) };
        let numbers: Result<Vec<f32>, _> = words.map(str::parse).collect();
        let numbers = numbers.map_err(|err| err.to_string())?;
        match (name, numbers.as_slice()) {
            ("size", [width, height]) => {
                (self.width, self.height) = (count(*width, 4096)?, count(*height, 4096)?);
            }
            ("samples", [samples]) => self.samples = count(*samples, 256)?,
            ("camera", [x, y, z, to_x, to_y, to_z]) => {
                (self.camera, self.target) = (Vector(*x, *y, *z), Vector(*to_x, *to_y, *to_z));
            }
            ("light", [x, y, z]) => self.light = Vector(*x, *y, *z),
            ("sphere", [x, y, z, radius, red, green, blue, mirror]) => self.spheres.push(Sphere {
                centre: Vector(*x, *y, *z),
                radius: *radius,
                colour: Vector(*red, *green, *blue),
                mirror: *mirror,
            }),
            _ => return Err(format!("`{}` is not understood", line.trim())),
        }
        Ok(())
    }

    /// Red, green and blue of one pixel.
    pub(crate) fn pixel(&self, column: u16, row: u16) -> [u8; 3] {
        let ahead = (self.target - self.camera).unit();
        let right = Vector(0.0, 1.0, 0.0).cross(ahead).unit();
        let up = ahead.cross(right);
        let (width, height) = (f32::from(self.width), f32::from(self.height));
        let mut chance = Chance::of(column, row);
        let mut light = Vector(0.0, 0.0, 0.0);
        for _ in 0..self.samples {
            let x = (f32::from(column) + chance.next()) / height - width / height / 2.0;
            let y = 0.5 - (f32::from(row) + chance.next()) / height;
            let ray = (ahead * 1.25 + right * x + up * y).unit();
            light = light + self.trace(self.camera, ray, BOUNCES_MAX, &mut chance);
        }
        let light = light * (1.0 / f32::from(self.samples));
        [byte(light.0), byte(light.1), byte(light.2)]
    }

    fn trace(&self, from: Vector, ray: Vector, bounces: u32, chance: &mut Chance) -> Vector {
        let Some(hit) = self.hit(from, ray) else { return sky(ray) };
        let at = from + ray * hit.distance + hit.normal * SKIN;
        let lit = self.lit(at, ray, &hit, chance);
        // Schlick's approximation: a surface reflects glancing rays more than direct ones.
        let glance = (1.0 + ray.dot(hit.normal)).clamp(0.0, 1.0).powi(5);
        let share = hit.mirror + (1.0 - hit.mirror) * glance * 0.6;
        let colour = if bounces == 0 || share < 0.02 {
            lit
        } else {
            lit.mix(self.trace(at, ray.mirrored(hit.normal), bounces - 1, chance), share)
        };
        // Haze hides the far edge of the floor.
        let haze = 1.0 - (-(hit.distance / 28.0).powi(2)).exp();
        colour.mix(sky(Vector(ray.0, ray.1.max(0.0), ray.2)), haze)
    }

    /// The light of lamp and sky that a surface scatters towards the camera.
    fn lit(&self, at: Vector, ray: Vector, hit: &Hit, chance: &mut Chance) -> Vector {
        let spread = Vector(chance.next() - 0.5, chance.next() - 0.5, chance.next() - 0.5);
        let to_lamp = self.light + spread * (2.0 * LIGHT_RADIUS) - at;
        let lamp = to_lamp.unit();
        let is_free = self.spheres.iter().all(|sphere| sphere.distance(at, lamp).is_none());
        let facing = hit.normal.dot(lamp).max(0.0);
        let from_sky = 0.28 + 0.14 * hit.normal.1;
        let from_lamp = if is_free { 0.85 * facing } else { 0.0 };
        let shine = ray.mirrored(hit.normal).dot(lamp).max(0.0).powi(60);
        let shine = if is_free { shine * (0.25 + hit.mirror) } else { 0.0 };
        hit.colour * (from_sky + from_lamp) + Vector(1.0, 0.97, 0.9) * shine
    }

    /// The nearest surface that a ray hits.
    fn hit(&self, from: Vector, ray: Vector) -> Option<Hit> {
        let spheres = self.spheres.iter().filter_map(|sphere| sphere.hit(from, ray));
        let all = spheres.chain(floor(from, ray));
        all.min_by(|a, b| a.distance.total_cmp(&b.distance))
    }
}

impl Sphere {
    fn distance(&self, from: Vector, ray: Vector) -> Option<f32> {
        let to = self.centre - from;
        let along = to.dot(ray);
        let inside = self.radius * self.radius - (to.dot(to) - along * along);
        let near = along - inside.max(0.0).sqrt();
        (inside > 0.0 && near > SKIN).then_some(near)
    }

    fn hit(&self, from: Vector, ray: Vector) -> Option<Hit> {
        let distance = self.distance(from, ray)?;
        let normal = (from + ray * distance - self.centre) * (1.0 / self.radius);
        Some(Hit { distance, normal, colour: self.colour, mirror: self.mirror })
    }
}

fn floor(from: Vector, ray: Vector) -> Option<Hit> {
    let distance = -from.1 / ray.1;
    if ray.1 >= 0.0 || distance <= SKIN {
        return None;
    }
    let at = from + ray * distance;
    let is_dark = (at.0.floor() + at.2.floor()).rem_euclid(2.0) < 1.0;
    let colour = if is_dark { Vector(0.16, 0.18, 0.22) } else { Vector(0.86, 0.85, 0.82) };
    Some(Hit { distance, normal: Vector(0.0, 1.0, 0.0), colour, mirror: 0.12 })
}

/// The colour of the sky, from a warm horizon to a deep blue.
fn sky(ray: Vector) -> Vector {
    let height = ray.1.clamp(0.0, 1.0).sqrt();
    Vector(0.93, 0.80, 0.68).mix(Vector(0.13, 0.28, 0.58), height)
}

/// A pseudo-random generator (xorshift32) seeded by the pixel, so that a picture's CID is reproducible.
struct Chance(u32);

impl Chance {
    fn of(column: u16, row: u16) -> Self {
        Self((u32::from(column) << 16 | u32::from(row)).wrapping_mul(0x9e37_79b9) | 1)
    }

    /// The next number, at least 0 and below 1.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        let [high, low, ..] = self.0.to_be_bytes();
        f32::from(u16::from_be_bytes([high, low])) / 65536.0
    }
}

/// Converts to a whole number from 1 to `max`.
fn count(number: f32, max: u16) -> Result<u16, String> {
    (1..=max)
        .find(|count| f32::from(*count).total_cmp(&number).is_eq())
        .ok_or_else(|| format!("{number} is no whole number from 1 to {max}"))
}

/// Converts linear light to a screen's value with a gamma of 2.2.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast to u8 saturates, as light on a screen does"
)]
fn byte(light: f32) -> u8 {
    (light.clamp(0.0, 1.0).powf(1.0 / 2.2) * 255.0).round() as u8
}
